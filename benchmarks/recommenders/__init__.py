"""Training and evaluation of recommenders, against a plain loop and by size."""
