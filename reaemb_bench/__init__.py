"""reaemb-bench: compare ways of turning a language model into item embeddings for sequential recommendation."""

__version__ = "0.1.0.dev0"
