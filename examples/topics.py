"""Print Python's own help topics as one long text: what `help("topics")` offers, by name."""

from __future__ import annotations

import sys
from pydoc_data.topics import topics

sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
for name in sorted(topics):
    print(f"{name}\n\n{topics[name]}\n")
