"""Pictures of what a run learned and how it ranks: one file a plot, with its numbers, words and drawing."""
