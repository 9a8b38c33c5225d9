"""The cost of the language model's steps, compared with the released code's way to compute the same numbers."""
