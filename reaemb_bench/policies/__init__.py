"""Policies: the density of a sampled thought, and the clipped objective over it."""
