"""Pass-key retrieval (Mohtashami & Jaggi 2023, arXiv:2305.16300): a number hidden in a repeated filler text.

The simplest question that a window must answer. The filler is the paper's, said over and over (`noise`); the key is a
random number of five digits, stated once at `depth` and asked for at the end.
"""

from __future__ import annotations

import random

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig

from longspan.evaluation.haystack import at_depths, hide
from longspan.evaluation.lengths import TokenCounter, counter, parse_lengths
from longspan.evaluation.samples import make_sample, room
from longspan.evaluation.scorers import includes_all
from longspan.registry import register

BEFORE = "A pass key is hidden in the text below. Remember it; the rest does not matter.\n\n"
NEEDLE = "The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "What is the pass key?"
ANSWER_TOKENS = 16


@register("task", "passkey")
@task(name="passkey")
def passkey(
    lengths: str | int = "1k,2k,4k,8k",
    depths: int = 5,
    samples: int = 2,
    haystack: str = "noise",
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """A five-digit key in repeated filler, `samples` for each of `lengths` x `depths` cells.

    `haystack` is noise (the paper's filler), repeated, real or the path of a text.
    """
    count = counter(tokenizer)
    cells = [
        (length, at / max(depths - 1, 1), number)
        for length in parse_lengths(lengths)
        for at in range(depths)
        for number in range(samples)
    ]
    dataset = [one(length, depth, f"{seed}-{number}", count, haystack) for length, depth, number in cells]
    return Task(
        dataset=MemoryDataset(dataset, name="passkey"),
        scorer=includes_all(),
        config=GenerateConfig(max_tokens=ANSWER_TOKENS, temperature=0.0),
    )


def one(length: int, depth: float, seed: str, counter: TokenCounter, haystack: str = "noise") -> Sample:
    name = f"passkey-{length}-{depth:.2f}-{seed}" + ("" if haystack == "noise" else f"-{haystack}")
    key = random.Random(f"passkey-{length}-{depth}-{seed}").randint(10_000, 99_999)
    needle = NEEDLE.format(key=key)
    after = f"\n\n{QUESTION} Answer with the number alone."
    hidden = hide(
        [needle],
        at_depths([depth]),
        haystack=haystack,
        before=BEFORE,
        after=after,
        room=room(length, counter, ANSWER_TOKENS),
        counter=counter,
        seed=name,
    )
    return make_sample(
        name,
        before=BEFORE,
        context=hidden.context,
        after=after,
        question=QUESTION,
        targets=[str(key)],
        length=length,
        counter=counter,
        answer_tokens=ANSWER_TOKENS,
        depth=depth,
        needles=[needle],
        tokens=hidden.tokens,
        haystack=haystack,
    )
