"""Results of a run for use elsewhere: item vectors, the encoder that made them, a card; and what lies near what."""
