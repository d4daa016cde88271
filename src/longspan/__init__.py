"""longspan lets a language model read, remember and reason over far more than its window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longspan.asking import ask
    from longspan.corpus import Corpus
    from longspan.models import load
    from longspan.workflows import Answer, Citation, Settings

__version__ = "0.1.0"
__all__ = ["Answer", "Citation", "Corpus", "Settings", "__version__", "ask", "load"]

_HOMES = {
    "Answer": "longspan.workflows",
    "Citation": "longspan.workflows",
    "Corpus": "longspan.corpus",
    "Settings": "longspan.workflows",
    "ask": "longspan.asking",
    "load": "longspan.models",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import longspan` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'longspan' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
