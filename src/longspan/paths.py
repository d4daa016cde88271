"""Where longspan keeps what it can make again: converted models, indexes, converted documents."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_home() -> Path:
    """The user's cache folder for longspan: `$LONGSPAN_CACHE`, else the platform's own convention."""
    if given := os.environ.get("LONGSPAN_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "longspan"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "longspan" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longspan"
