"""Finding passages: one index, full text and vectors."""

from longspan.retrieval.encoder import Encoder, Vectors
from longspan.retrieval.index import Hit, Index, drop, info, stored

__all__ = ["Encoder", "Hit", "Index", "Vectors", "drop", "info", "stored"]
