"""Tables, pages, plots, exports."""
