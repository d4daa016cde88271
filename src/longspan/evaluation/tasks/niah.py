"""Needle in a haystack (Kamradt 2023): a fact hidden in a long text at a depth, asked for at the end.

Every needle gives one place an access code of seven digits. The prompt always says what to answer when the text does
not tell, so that `niah-none`, where it does not, measures made-up answers under the instructions of the others.
"""

from __future__ import annotations

import random
import re

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import TaskState

from longspan.errors import UsageError
from longspan.evaluation.haystack import at_depths, hide
from longspan.evaluation.lengths import TokenCounter, counter, parse_lengths
from longspan.evaluation.samples import make_sample, room
from longspan.evaluation.scorers import METRICS, includes_all
from longspan.evaluation.words import ADJECTIVES, NOUNS
from longspan.registry import register

BEFORE = "Read the text below. A question about it follows.\n\n"
NEEDLE = "The access code of the {place} is {code}."
ONE = "What is the access code of the {places}?"
MANY = "What are the access codes of the {places}?"
OTHERWISE = 'Answer in one line. If the text does not tell, answer "none".'
NONE = "none"
ANSWER_TOKENS = 40  # a sentence with one code; each further code gets CODE_TOKENS
CODE_TOKENS = 24


@register("task", "niah")
@task(name="niah")
def niah(
    lengths: str | int = "1k,2k,4k,8k",
    depths: int = 5,
    samples: int = 2,
    needles: int = 1,
    haystack: str = "real",
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """Codes hidden in real (or other) text over a grid of lengths and depths; with no needle, none must be given.

    `samples` for each of `lengths` x `depths` cells. `haystack` is noise, repeated, real or the path of a text. The
    first of several `needles` stands at the depth, the others at even distances from there to the end; the score is
    the share of codes found. With `needles=0` the question is of a code that the text does not give (see
    `says_none`); there is no depth then, and as many samples of each length.
    """
    if not 0 <= needles <= 32:
        raise UsageError(f"needles={needles} cannot be hidden: give 0 to 32.")
    count = counter(tokenizer)
    cells = [
        (length, at / max(depths - 1, 1), number)
        for length in parse_lengths(lengths)
        for at in range(depths)
        for number in range(samples)
    ]
    dataset = [one(length, depth, needles, haystack, f"{seed}-{number}", count) for length, depth, number in cells]
    return Task(
        dataset=MemoryDataset(dataset, name="niah"),
        scorer=includes_all() if needles else says_none(),
        config=GenerateConfig(max_tokens=answer_tokens(needles), temperature=0.0),
    )


@register("task", "niah-multi")
@task(name="niah_multi")
def niah_multi(
    lengths: str | int = "1k,2k,4k,8k",
    depths: int = 5,
    samples: int = 2,
    needles: int = 4,
    haystack: str = "real",
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """Several codes hidden in one text, all asked for: the share that is found."""
    return niah(lengths, depths, samples, needles, haystack, seed, tokenizer)


@register("task", "niah-none")
@task(name="niah_none")
def niah_none(
    lengths: str | int = "1k,2k,4k,8k",
    depths: int = 5,
    samples: int = 2,
    haystack: str = "real",
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """The control without a needle: right is to say that the text does not tell, and to make up no code."""
    return niah(lengths, depths, samples, 0, haystack, seed, tokenizer)


def answer_tokens(needles: int) -> int:
    return ANSWER_TOKENS + CODE_TOKENS * max(needles - 1, 0)


def one(length: int, depth: float, needles: int, haystack: str, seed: str, counter: TokenCounter) -> Sample:
    """One sample: the same for the same arguments, whatever else is asked for beside it."""
    name = f"niah-{haystack}-{needles}-{length}-{depth:.2f}-{seed}"
    chance = random.Random(name)
    asked = max(needles, 1)
    places = [
        f"{adjective} {noun}"
        for adjective, noun in zip(chance.sample(ADJECTIVES, asked), chance.sample(NOUNS, asked), strict=True)
    ]
    codes = [str(code) for code in chance.sample(range(10**6, 10**7), asked)]
    facts = [NEEDLE.format(place=place, code=code) for place, code in zip(places, codes, strict=True)][:needles]
    spread = [depth + (1 - depth) * i / asked for i in range(needles)]
    question = (ONE if asked == 1 else MANY).format(places=listed(places))
    after = f"\n\n{question} {OTHERWISE}"
    expected = answer_tokens(needles)
    hidden = hide(
        facts,
        at_depths(spread),
        haystack=haystack,
        before=BEFORE,
        after=after,
        room=room(length, counter, expected),
        counter=counter,
        seed=name,
    )
    return make_sample(
        name,
        before=BEFORE,
        context=hidden.context,
        after=after,
        question=f"{question} {OTHERWISE}",
        targets=codes[:needles] or [NONE],
        length=length,
        counter=counter,
        answer_tokens=expected,
        depth=depth if needles else None,
        needles=facts,
        tokens=hidden.tokens,
        haystack=haystack,
        count=needles,
    )


def listed(names: list[str]) -> str:
    """`a`, `a and the b`, `a, the b and the c`."""
    return " and the ".join([", the ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# Ways to say that the text does not tell.
DECLINES = re.compile(
    r"\b(?:none|nothing|nowhere|unknown|unspecified|no (?:access )?code|no (?:mention|information|answer|such)|not "
    r"(?:\w+ )?(?:given|told|tell|say|said|state|stated|specif\w+|mention\w*|provid\w+|contain\w*|includ\w+|known|"
    r"found|listed|present|appear|available|there|in the text|possible)|(?:does|do|is|did|was|could|can)(?:n't|n’t)|"
    r"cannot|unable)\b",
    re.IGNORECASE,
)
INVENTED = re.compile(r"\d[\d\s,.-]*\d[\d\s,.-]*\d")  # three digits or more, as of a code


@scorer(metrics=METRICS)
def says_none() -> Scorer:
    """1 if the answer says that the text does not tell and gives no code; else 0.

    It says so by "none" or another such phrase (`DECLINES`); it gives a code where it has three digits or more in a
    row, blanks and punctuation between them not counted. An answer that declines and then offers a code is wrong, so
    is one that does neither.
    """

    async def score(state: TaskState, target: Target) -> Score:
        answer = state.output.completion
        declines, invented = DECLINES.search(answer), INVENTED.search(answer)
        reason = "gives a code" if invented else "declines" if declines else "does not say that there is none"
        return Score(value=float(declines is not None and invented is None), answer=answer, explanation=reason)

    return score
