"""What `reaemb-bench new` and `init` start a user's own files from: a working example and its test for each kind."""
