"""The language model that thinks before it embeds, and the folders it lives in."""
