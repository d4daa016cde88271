"""Running a model: prefill in chunks, decode, sample, score, reuse prefixes.

What needs torch is imported when first asked for.
"""

from typing import TYPE_CHECKING, Any

from longspan.engine.sampling import Sampling
from longspan.models import importing

if TYPE_CHECKING:
    from longspan.engine.engine import Cancelled, Engine, Generation, Request
    from longspan.engine.grammar import Grammar

__all__ = ["Cancelled", "Engine", "Generation", "Grammar", "Request", "Sampling"]


def __getattr__(name: str) -> Any:
    with importing:
        if name == "Grammar":
            from longspan.engine.grammar import Grammar

            return Grammar
        if name in __all__:
            from longspan.engine import engine

            return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
