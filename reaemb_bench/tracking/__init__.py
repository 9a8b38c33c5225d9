"""Watchers: they take the pipeline's events and show or log them; steps import none of them."""
