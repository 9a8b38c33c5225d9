"""Data: sources of interactions, filters, splits, item prompts, and the artefacts made of them."""
