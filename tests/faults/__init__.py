"""Faults: bad input, seeded and counted. What is tried must end well or be refused in one line; nothing else."""
