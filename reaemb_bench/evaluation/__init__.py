"""Ranks, metrics, groups, significance, the leak test."""
