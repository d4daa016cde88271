"""The tasks: one module a benchmark, each task an inspect_ai task under its own name."""

from __future__ import annotations

from longspan.evaluation.tasks import m4le, passkey  # noqa: F401 - they register themselves

# Names that stand for several tasks.
GROUPS: dict[str, list[str]] = {"m4le": ["m4le"]}
