"""Ablations: variants of one recipe, each an edit of it, side by side with it."""
