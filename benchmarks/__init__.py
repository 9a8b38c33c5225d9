"""Benchmarks: what they measure and how they are run is told in the READMEs beside them."""
