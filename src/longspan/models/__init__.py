"""Models by name: what they are made of, and what is known of them.

What needs torch is imported when first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longspan.models.loading import LoadedModel, describe, load
    from longspan.models.prompt import encode, render

__all__ = ["LoadedModel", "describe", "encode", "load", "render"]


def __getattr__(name: str) -> Any:
    if name in ("encode", "render"):
        from longspan.models import prompt

        return getattr(prompt, name)
    if name in __all__:
        from longspan.models import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
