"""RULER's eight needle tasks: in which hay, with what keys and values, how many there are and how many are asked."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from inspect_ai.dataset import Sample

from longspan.evaluation.haystack import Hidden, Positions, Source, hide, source_of
from longspan.evaluation.lengths import TokenCounter
from longspan.evaluation.samples import make_sample, room
from longspan.evaluation.words import ADJECTIVES, NOUNS

NEEDLE = "One of the {kind}s that were noted for {key} is: {value}."
BEFORE_ONE = "A {kind} was noted somewhere in the following text. Keep it in mind: you will be asked for it.\n\n"
BEFORE_MANY = "Some {kind}s were noted in the following text. Keep them in mind: you will be asked for them.\n\n"
ASK_ONE = "Which {kind} was noted for {keys} in the text? Answer with it alone."
ASK_MANY = "Which are all the {kind}s that were noted for {keys} in the text? Answer with them alone."
KIND = {"number": "number", "uuid": "code"}  # what the prompt calls a value
ANSWER_TOKENS = 128
DEPTHS = [round(i * 100 / 39) / 100 for i in range(40)]  # where needles may stand in real text


@dataclass(frozen=True, slots=True)
class Needles:
    """One of RULER's needle tasks.

    `keys` are in the text, each with `values` of them; the values of `asked` keys are the answer. `hay` is "noise",
    "real" (RULER: essays) or "needles": other keys and values, as many as fit.
    """

    name: str
    hay: str
    key: str = "words"
    value: str = "number"
    keys: int = 1
    values: int = 1
    asked: int = 1


def one(shape: Needles, length: int, seed: str, counter: TokenCounter, haystack: str = "real") -> Sample:
    """One sample of a needle task; `haystack` stands in for "real" hay."""
    hay = haystack if shape.hay == "real" else shape.hay
    name = f"ruler-{shape.name.replace('_', '-')}-{length}-{seed}"
    chance = random.Random(name + ("" if hay in ("real", shape.hay) else hay))
    keys = draw(shape.key, shape.keys, chance)
    values = draw(shape.value, shape.keys * shape.values, chance)
    held = {key: values[i * shape.values : (i + 1) * shape.values] for i, key in enumerate(keys)}
    kind = KIND[shape.value]
    needle_of = {value: NEEDLE.format(kind=kind, key=key, value=value) for key in keys for value in held[key]}
    needles = list(needle_of.values())
    chance.shuffle(needles)
    asked = chance.sample(keys, shape.asked)
    targets = [value for key in asked for value in held[key]]

    several = len(targets) > 1
    before = (BEFORE_MANY if several else BEFORE_ONE).format(kind=kind)
    question = (ASK_MANY if several else ASK_ONE).format(kind=kind, keys=listed(asked))
    after = f"\n\n{question}"
    space = room(length, counter, ANSWER_TOKENS)
    source: str | Source = hay
    if hay == "needles":
        source = others(shape, space, counter, chance, {*keys, *values})
    if shape.hay == "real":
        depths = sorted(chance.sample(DEPTHS, len(needles)))
        positions: Positions = lambda shares: [int((len(shares) - 1) * depth) for depth in depths]  # noqa: E731
    else:
        positions = apart(len(needles), name)
    hidden = hide(
        needles,
        positions,
        haystack=source,
        before=before,
        after=after,
        room=space,
        counter=counter,
        seed=name,
    )
    wanted = [needle_of[value] for value in targets]
    return make_sample(
        name,
        before=before,
        context=hidden.context,
        after=after,
        question=question,
        targets=targets,
        length=length,
        counter=counter,
        answer_tokens=ANSWER_TOKENS,
        depth=depth_of(wanted, needles, hidden),
        needles=wanted,
        tokens=hidden.tokens,
        haystack=hay,
    )


def depth_of(wanted: Sequence[str], needles: Sequence[str], hidden: Hidden) -> float | None:
    """Where the needle stands that is asked for; None where there are several."""
    return hidden.depths[needles.index(wanted[0])] if len(wanted) == 1 else None


def apart(count: int, seed: str) -> Positions:
    """Each needle before another line of hay, any line as likely as any."""
    return lambda shares: sorted(random.Random(f"positions-{seed}").sample(range(len(shares) - 1), count))


def draw(kind: str, count: int, chance: random.Random) -> list[str]:
    """`count` different keys or values: "words" is an adjective and a noun, "number" has seven digits."""
    found: dict[str, None] = {}
    while len(found) < count:
        if kind == "words":
            found[f"{chance.choice(ADJECTIVES)}-{chance.choice(NOUNS)}"] = None
        elif kind == "number":
            found[str(chance.randrange(10**6, 10**7))] = None
        else:
            found[str(uuid.UUID(int=chance.getrandbits(128), version=4))] = None
    return list(found)


def others(shape: Needles, space: int, counter: TokenCounter, chance: random.Random, taken: set[str]) -> Source:
    """Hay of needles with other keys and values: none of them is `taken`, and each key stands once."""

    def lines(count: int) -> list[str]:
        keys = [key for key in draw(shape.key, count + len(taken), chance) if key not in taken]
        values = [value for value in draw(shape.value, count + len(taken), chance) if value not in taken]
        kind = KIND[shape.value]
        pairs = list(zip(keys, values, strict=False))[:count]
        return ["\n" + NEEDLE.format(kind=kind, key=key, value=value) for key, value in pairs]

    some = lines(64)
    enough = int(space / counter.count("".join(some)) * len(some) * 1.05) + 32
    return source_of(lines(enough), counter, joint="\n")


def listed(keys: Sequence[str]) -> str:
    return " and ".join([", ".join(keys[:-1]), keys[-1]] if len(keys) > 1 else keys)
