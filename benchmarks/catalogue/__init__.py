"""Rewards against a whole catalogue."""
