"""Many variants of a recipe: ablations, suites, sweeps."""
