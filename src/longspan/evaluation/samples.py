"""What every task is made of: one sample, with what reports, workflows and scorers need to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inspect_ai.dataset import Sample

from longspan.evaluation.lengths import TokenCounter


def make_sample(
    id: str,
    *,
    before: str = "",
    context: str,
    after: str,
    question: str,
    targets: Sequence[str],
    length: int,
    counter: TokenCounter,
    answer_tokens: int,
    depth: float | None = None,
    needles: Sequence[str] = (),
    tokens: int | None = None,
    **dimensions: str | int | float | bool | None,
) -> Sample:
    """A sample whose prompt is `before + context + after`.

    `context` is the long text and `question` what is asked of it, without the text: a workflow is given these two
    apart. `length` is the nominal length in tokens: prompt, chat template and `answer_tokens` together (as RULER
    counts); the true one is measured unless the caller knows the prompt's `tokens`. `depth` (0 to 1) says where the
    needle stands, `needles` are the verbatim passages of the prompt that hold the answer (reports highlight them).
    `dimensions` are whatever else a report may group by (ability, difficulty, ...).
    """
    prompt = f"{before}{context}{after}"
    if tokens is None:
        tokens = counter.count(prompt)
    metadata: dict[str, Any] = {
        "length": length,
        "tokens": tokens + counter.overhead + answer_tokens,
        "tokenizer": counter.name,
        "depth": depth,
        "context": [len(before), len(before) + len(context)],
        "question": question,
        "needles": list(needles),
        "dimensions": dimensions,
    }
    return Sample(id=id, input=prompt, target=list(targets), metadata=metadata)


def room(length: int, counter: TokenCounter, answer_tokens: int) -> int:
    """How many tokens a prompt may have so that with template and answer it makes up `length`."""
    return length - counter.overhead - answer_tokens
