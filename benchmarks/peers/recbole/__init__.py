"""One library and its pinned environment."""
