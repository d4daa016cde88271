"""Models by name: what they are made of, and what is known of them.

What needs torch is imported when first asked for.
"""

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longspan.models.loading import LoadedModel, describe, embedded_counter, load, plain_tokenizer
    from longspan.models.prompt import encode, render

__all__ = [
    "LoadedModel",
    "describe",
    "embedded_counter",
    "encode",
    "importing",
    "load",
    "plain_tokenizer",
    "render",
]

# transformers fills its modules in as names are asked for, which two threads cannot do at once: whoever imports what
# imports transformers, from inside a function, holds this meanwhile.
importing = threading.RLock()


def __getattr__(name: str) -> Any:
    with importing:
        if name in ("encode", "render"):
            from longspan.models import prompt

            return getattr(prompt, name)
        if name in __all__:
            from longspan.models import loading

            return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
