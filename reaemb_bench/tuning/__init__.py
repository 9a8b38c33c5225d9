"""Search for settings: many recipes tried, judged by validation targets alone, in a study that processes share."""
