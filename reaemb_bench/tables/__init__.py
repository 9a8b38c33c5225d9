"""Item tables: where a recommender's item vectors come from."""
