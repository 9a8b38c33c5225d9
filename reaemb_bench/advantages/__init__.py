"""Advantages: which rollouts of a group to strengthen, and which to weaken."""
