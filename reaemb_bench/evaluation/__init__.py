"""From scores to ranks, and from ranks to every number that people look at."""
