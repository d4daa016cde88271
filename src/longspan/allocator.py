"""What this process has freed, back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Return freed memory to the system: glibc keeps it for its threads' next needs, hundreds of megabytes after work
    that the process does once (converting a model, indexing a text)."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
