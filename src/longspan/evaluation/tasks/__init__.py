"""The tasks: one module a benchmark, each task an inspect_ai task under its own name."""

from __future__ import annotations

from longspan.evaluation.tasks import (  # noqa: F401 - they register themselves
    giraffe,
    infinitebench,
    longbench_pro,
    m4le,
    niah,
    passkey,
    perplexity,
    ruler,
    ruler_lm_eval,
    sparse_frontier,
)

# Names that stand for several tasks.
GROUPS: dict[str, list[str]] = {
    "giraffe": ["longchat-lines", "freeform-qa", "altered-numeric-qa"],
    "sparse-frontier": [
        "story-retrieval",
        "story-filtering",
        "story-multihop",
        "ruler-vt",
        "ruler-cwe",
        "ruler-qa-1",
        "ruler-qa-2",
    ],
    "ruler": [
        "ruler-niah-single-1",
        "ruler-niah-single-2",
        "ruler-niah-single-3",
        "ruler-niah-multikey-1",
        "ruler-niah-multikey-2",
        "ruler-niah-multikey-3",
        "ruler-niah-multivalue",
        "ruler-niah-multiquery",
        "ruler-vt",
        "ruler-cwe",
        "ruler-fwe",
        "ruler-qa-1",
        "ruler-qa-2",
    ],
}
