"""One row a sample: what reports, tables and statistics are made from, whatever ran it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Row:
    """One answer of one spec to one sample.

    `length` is nominal and `tokens` the true size (prompt, template and room for the answer), in the tokens of
    `tokenizer`. `score` is 0 to 1, and None where the sample `failed`: the model crashed or timed out, as `error` says;
    that is counted apart from wrong answers, never dropped. Seconds are wall time, `cache_bytes` the keys and values
    held at the end, `peak_bytes` the process's peak of memory. `needles` are verbatim parts of the prompt.
    `dimensions` are whatever else the task groups by (ability, difficulty, variant ...).
    """

    spec: str
    task: str
    sample: str
    epoch: int
    length: int
    tokens: int
    score: float | None
    failed: bool = False
    error: str = ""
    depth: float | None = None
    above_window: bool = False
    target: list[str] = field(default_factory=list)
    question: str = ""
    answer: str = ""
    needles: list[str] = field(default_factory=list)
    excerpt: str = ""  # the prompt around the first needle
    dimensions: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cache_bytes: int | None = None
    peak_bytes: int | None = None
    cost: float | None = None
    log: str = ""
