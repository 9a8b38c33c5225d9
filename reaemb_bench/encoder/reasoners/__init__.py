"""Latent thoughts."""
