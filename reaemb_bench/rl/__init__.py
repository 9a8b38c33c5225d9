"""Stage CRRL: rewards, advantages, policies."""
