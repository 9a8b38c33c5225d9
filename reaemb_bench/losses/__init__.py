"""Contrastive losses over pairs of views."""
