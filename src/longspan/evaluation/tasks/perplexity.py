"""Perplexity of real text against the length of its context, and against position.

Each sample scores the last `SCORED` tokens of a stretch of text under the model, given the tokens before them. The
score is 1 / perplexity, the geometric mean of the tokens' probabilities (0 to 1, more is better), so that it goes into
the same tables and charts as every other; reports tell the perplexity, and leave it out of means over tasks.

- `perplexity`: the same scored tokens for every length, so that nothing changes but how much comes before them. What a
  model gains from a longer context, and where it breaks, is seen without the noise of other text.
- `perplexity-position` (prefix): the tokens that end at that position of a text, with all before them: the usual curve
  of loss against position.
- `perplexity-sliding`: the same tokens with only the last `window` before them: what a sliding window loses.

Raw text, without a chat template. Models behind endpoints do not tell how likely a given text is.
"""

from __future__ import annotations

import math
import pydoc_data.topics
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput, get_model
from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from longspan.errors import LongspanError, UsageError
from longspan.evaluation.lengths import TokenCounter, counter, parse_lengths
from longspan.evaluation.provider import local_llm
from longspan.evaluation.scorers import METRICS
from longspan.registry import register

SCORED = 256  # tokens, or a quarter of the shortest length if that is less

Kind = Literal["length", "prefix", "sliding"]


@register("task", "perplexity")
@task(name="perplexity")
def perplexity(
    lengths: str | int = "1k,2k,4k,8k", samples: int = 4, seed: int = 0, tokenizer: str | None = None
) -> Task:
    """1 / perplexity of the same tokens of real text after more and more context."""
    return _task("length", lengths, samples, seed, tokenizer)


@register("task", "perplexity-position")
@task(name="perplexity_position")
def perplexity_position(
    lengths: str | int = "1k,2k,4k,8k", samples: int = 4, seed: int = 0, tokenizer: str | None = None
) -> Task:
    """1 / perplexity of real text up to a position, with all of it before."""
    return _task("prefix", lengths, samples, seed, tokenizer)


@register("task", "perplexity-sliding")
@task(name="perplexity_sliding")
def perplexity_sliding(
    lengths: str | int = "1k,2k,4k,8k",
    samples: int = 4,
    seed: int = 0,
    window: int = 1024,
    tokenizer: str | None = None,
) -> Task:
    """1 / perplexity of real text up to a position, with only the last `window` tokens before."""
    return _task("sliding", lengths, samples, seed, tokenizer, window)


def _task(kind: Kind, lengths: str | int, samples: int, seed: int, tokenizer: str | None, window: int = 0) -> Task:
    count = counter(tokenizer)
    sizes = parse_lengths(lengths)
    dataset = [one(kind, length, sizes, number, seed, count, window) for length in sizes for number in range(samples)]
    name = "perplexity" if kind == "length" else f"perplexity_{'position' if kind == 'prefix' else kind}"
    return Task(dataset=MemoryDataset(dataset, name=name), solver=read(), scorer=likelihood())


def one(
    kind: Kind, length: int, lengths: Sequence[int], number: int, seed: int, counter: TokenCounter, window: int = 0
) -> Sample:
    """Stretch `number` of the text, as long as the longest of `lengths`, cut to `length`; its end is scored."""
    text, starts = source(counter)
    longest, scored = max(lengths), min(SCORED, min(lengths) // 4)
    if longest > len(starts):
        raise UsageError(f"The text has {len(starts)} tokens: a length of {longest} is more than there is.")
    room = len(starts) - longest
    begin = (number * 7919 + seed * 104_729) * 97 % (room + 1)  # spread over the text, the same for every length
    stretch = [*starts, len(text)][begin : begin + longest + 1]
    if kind == "length":
        first, end = longest - length, longest
    else:
        first, end = 0, length
        if kind == "sliding":
            first = max(0, end - scored - window)
    split = end - scored
    before, scored_text = text[stretch[first] : stretch[split]], text[stretch[split] : stretch[end]]
    return Sample(
        id=f"perplexity-{kind}-{length}-{seed}-{number}",
        input=before,
        target=scored_text,
        metadata={
            "length": length,
            "tokens": end - first,
            "tokenizer": counter.name,
            "depth": None,
            "context": [0, len(before)],
            "question": f"The {scored} tokens that follow",
            "needles": [],
            "dimensions": {"window": window} if kind == "sliding" else {},
        },
    )


@lru_cache(maxsize=2)
def source(counter: TokenCounter) -> tuple[str, list[int]]:
    """Python's help topics as one text, and where its tokens begin. What several topics say stands there once: the
    model would know it by heart from the one before."""
    topics = pydoc_data.topics.topics
    parts = (part for name in sorted(topics) for part in (name, *re.split(r"\n\s*\n", topics[name].strip())))
    text = "\n\n".join(dict.fromkeys(parts))
    return text, counter.starts(text)


@solver
def read() -> Solver:
    """Instead of writing: how likely the target is after the input, token by token."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        model = get_model()
        llm = local_llm(model)
        if llm is None:
            raise LongspanError(
                f"{model.name} is behind an endpoint, which does not tell how likely a text is: "
                "perplexity needs a model on this machine."
            )
        (scores,) = await llm.loglikelihood([(state.input_text, state.target.text)])
        nats = -sum(scores) / len(scores)
        state.output = ModelOutput.from_content(model.name, f"perplexity {math.exp(nats):.2f}")
        state.output.metadata = {"nats": nats, "input_tokens": int(state.metadata["tokens"]), "output_tokens": 0}
        return state

    return solve


@scorer(metrics=METRICS)
def likelihood() -> Scorer:
    """1 / perplexity."""

    async def score(state: TaskState, target: Target) -> Score:
        nats = float((state.output.metadata or {})["nats"])
        return Score(value=math.exp(-nats), answer=state.output.completion, metadata={"nats": nats})

    return score
