"""The steps that recipes are made of."""
