"""Reading raw review files, against plain Python."""
