"""Co-occurrence counts and candidate lists against a plain loop, and at 20 million interactions."""
