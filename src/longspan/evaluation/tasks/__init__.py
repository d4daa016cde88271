"""The tasks: one module a benchmark, each task an inspect_ai task under its own name."""

from __future__ import annotations

from longspan.evaluation.tasks import giraffe, passkey, sparse_frontier  # noqa: F401 - they register themselves

# Names for several tasks at once.
GROUPS: dict[str, list[str]] = {
    "giraffe": ["longchat-lines", "freeform-qa", "altered-numeric-qa"],
    "sparse-frontier": ["story-retrieval", "story-filtering", "story-multihop"],
}
