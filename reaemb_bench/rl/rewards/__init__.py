"""Rewards from the scores of candidates."""
