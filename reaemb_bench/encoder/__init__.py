"""Language models as encoders of item texts, and stage LRCL."""
