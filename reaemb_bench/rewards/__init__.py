"""Rewards: how well a rollout ranks its candidates."""
