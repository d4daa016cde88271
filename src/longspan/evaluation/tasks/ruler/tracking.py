"""RULER's variable tracking: a chain of assignments over the text, and the question which variables hold its value.

As in the original, a solved example in a short text of its own stands before the question (500 tokens).
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

from inspect_ai.dataset import Sample

from longspan.evaluation.haystack import Hidden, hide
from longspan.evaluation.lengths import TokenCounter
from longspan.evaluation.samples import make_sample, room
from longspan.evaluation.tasks.ruler.niah import apart

BEFORE = "Follow the assignments of variables that are spread over the text below.\n\n"
AFTER = "\n\n{question}\n"
QUESTION = "Which variables hold the value {value}? There are {count}; answer with their names alone."
ANSWER = "Answer: {names}\n\n"
SET = "LET {name} = {value}"
CHAINS = 1
HOPS = 4
ANSWER_TOKENS = 30
EXAMPLE_TOKENS = 500  # or half of a length below 1 000, for which the original has no form


def one(length: int, seed: str, counter: TokenCounter) -> Sample:
    """One sample: five variables, the first assigned a number, each further one the variable before it."""
    name = f"ruler-vt-{length}-{seed}"
    chance = random.Random(name)
    shown_names, shown_value, shown = chain(3, chance)
    asked_names, value, needles = chain(5, chance)
    question = QUESTION.format(value=shown_value, count=len(shown_names))
    after = AFTER.format(question=question) + ANSWER.format(names=" ".join(shown_names))
    room_of_example = min(EXAMPLE_TOKENS, length // 2)
    example = spread(shown, BEFORE, after, room_of_example, f"example-{name}", counter)

    before = f"{BEFORE}{example.context}{after}{BEFORE}"
    question = QUESTION.format(value=value, count=len(asked_names))
    after = AFTER.format(question=question).rstrip()
    hidden = spread(needles, before, after, room(length, counter, ANSWER_TOKENS), name, counter)
    return make_sample(
        name,
        before=before,
        context=hidden.context,
        after=after,
        question=question,
        targets=asked_names,
        length=length,
        counter=counter,
        answer_tokens=ANSWER_TOKENS,
        needles=needles,
        tokens=hidden.tokens,
        hops=HOPS,
    )


def chain(letters: int, chance: random.Random) -> tuple[list[str], str, list[str]]:
    """The variables of one chain, its value, and its assignments in order."""
    names: dict[str, None] = {}
    while len(names) < HOPS + 1:
        names["".join(chance.choices(string.ascii_uppercase, k=letters))] = None
    found = list(names)
    value = str(chance.randrange(10_000, 99_999))
    return found, value, [SET.format(name=name, value=held) for name, held in zip(found, [value, *found], strict=False)]


def spread(needles: Sequence[str], before: str, after: str, space: int, seed: str, counter: TokenCounter) -> Hidden:
    return hide(
        needles,
        apart(len(needles), seed),
        haystack="noise",
        before=before,
        after=after,
        room=space,
        counter=counter,
        seed=seed,
    )
