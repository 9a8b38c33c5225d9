"""The terminal's live view and MLflow."""
