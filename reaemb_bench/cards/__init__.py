"""Data cards: what a prepared data set holds, how long its tail is, whether its order matters, and on what terms."""
