"""Vectors of a file, judged without a recipe."""
