"""Training losses of recommenders."""
