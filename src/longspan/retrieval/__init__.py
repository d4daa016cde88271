"""Finding passages: one index, full text and vectors."""

from longspan.retrieval.encoder import Encoder
from longspan.retrieval.index import Hit, Index, drop, info, stored

__all__ = ["Encoder", "Hit", "Index", "drop", "info", "stored"]
