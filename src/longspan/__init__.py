"""longspan lets a language model read, remember and reason over far more than its window."""

__version__ = "0.1.0"
