"""Maps from item vectors to fewer or better-conditioned dimensions."""
