"""Methods that learn nothing: what every number must beat."""
