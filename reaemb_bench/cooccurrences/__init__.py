"""Which items count as bought together."""
