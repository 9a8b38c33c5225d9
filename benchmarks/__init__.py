"""Benchmarks; the READMEs next to them say what they measure and how to run them."""
