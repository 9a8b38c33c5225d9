"""How much the language-model steps cost, beside the released code's way of computing the same numbers."""
