"""Sources, filters, splits, prompts, co-occurrence."""
