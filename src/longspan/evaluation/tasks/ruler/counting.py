"""RULER's two aggregation tasks: the words that are most common in a list (cwe) and in a coded text (fwe)."""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable
from itertools import islice

from inspect_ai.dataset import Sample

from longspan.evaluation.haystack import source_of, too_short
from longspan.evaluation.lengths import TokenCounter
from longspan.evaluation.samples import make_sample, room
from longspan.evaluation.words import ADJECTIVES, NOUNS, WORDS, vocabulary

ROUNDS = 8  # counts of a prompt at most; two are usual

# -- cwe ---------------------------------------------------------------------------------------------------------------

CWE_BEFORE = "The list below has words that stand in it more often than the others. Remember those.\n\n"
CWE_QUESTION = "Which are the 10 words that stand in the list most often? Answer with the 10 words alone."
CWE_ANSWER_TOKENS = 120
COMMON = 10
SHORT = 4096  # below it the words repeat less, as else too few would fit
OFTEN, SELDOM = 30, 3
SHORT_OFTEN, SHORT_SELDOM = 6, 1


def common_words(length: int, seed: str, counter: TokenCounter) -> Sample:
    """A numbered list in which ten words stand 30 times each and the others 3 times (6 and 1 below 4 096 tokens).

    A small solved list stands before it.
    """
    name = f"ruler-cwe-{length}-{seed}"
    chance = random.Random(name)
    short = length < SHORT
    often, seldom = (SHORT_OFTEN, SHORT_SELDOM) if short else (OFTEN, SELDOM)
    sample = lexicon(20 if short else 40, chance)
    answer = sample[:COMMON]
    shown = numbered(answer * 3 + sample[COMMON:] if short else answer * 10 + sample[COMMON:] * 3, chance)
    after = f"\n\n{CWE_QUESTION}"
    solved = " ".join(f"{i}. {word}" for i, word in enumerate(answer, 1))
    before = f"{CWE_BEFORE}{shown}{after}\nAnswer: {solved}\n\n{CWE_BEFORE}"
    space = room(length, counter, CWE_ANSWER_TOKENS)
    words = lexicon(space // (3 * seldom) + COMMON, chance)  # an entry takes 3 tokens at the very least
    sizes = source_of([f" {word}" for word in words], counter).ends
    number_tokens = {digits: counter.count(f" {10 ** (digits - 1)}.") for digits in range(1, 8)}

    def made(count: int) -> str:
        return numbered(words[:COMMON] * often + words[COMMON:count] * seldom, random.Random(f"{name}-list"))

    def tokens(count: int) -> int:
        entries = COMMON * often + (count - COMMON) * seldom
        numbers = sum(
            number_tokens[digits] * max(min(entries, 10**digits - 1) - 10 ** (digits - 1) + 1, 0)
            for digits in range(1, 8)
        )
        return int(numbers) + sizes[COMMON] * often + (sizes[min(count, len(words))] - sizes[COMMON]) * seldom

    count, measured = largest(lambda n: f"{before}{made(n)}{after}", tokens, COMMON + 1, space, counter)
    return make_sample(
        name,
        before=before,
        context=made(count),
        after=after,
        question=CWE_QUESTION,
        targets=words[:COMMON],
        length=length,
        counter=counter,
        answer_tokens=CWE_ANSWER_TOKENS,
        tokens=measured,
        words=count,
    )


def numbered(entries: list[str], chance: random.Random) -> str:
    """The entries, shuffled, as a numbered list in one line."""
    chance.shuffle(entries)
    return " ".join(f"{i}. {word}" for i, word in enumerate(entries, 1))


def lexicon(count: int, chance: random.Random) -> list[str]:
    """`count` different words in random order: first of the fixed list, of which the common words therefore always are;
    then of the vocabulary of Python's documentation; beyond it pairs of words."""
    words = chance.sample(WORDS, len(WORDS))
    if count > len(words):
        rest = vocabulary()[len(WORDS) :]
        words += chance.sample(rest, len(rest))
    pairs = (f"{adjective}-{noun}" for noun in NOUNS for adjective in ADJECTIVES)
    return [*words[:count], *islice(pairs, max(count - len(words), 0))]


# -- fwe ---------------------------------------------------------------------------------------------------------------

FWE_BEFORE = "The text below is in code. Count how often each coded word stands in it; the dots are no words.\n\n"
FWE_QUESTION = (
    "Which are the three words that stand in the coded text most often? Leave the dots out, explain nothing and answer "
    "with the three words alone."
)
FWE_ANSWER_TOKENS = 50
FWE_TARGETS = 3
LETTERS = 6
ZETA = math.pi**2 / 6  # of 2, the exponent (RULER's alpha)
TOKENS_A_WORD = 50  # one word of vocabulary for so many tokens of the length


def frequent_words(length: int, seed: str, counter: TokenCounter) -> Sample:
    """Coded words whose counts fall with the square of their rank (a zeta distribution); the first rank is dots.

    The three next most frequent are asked for.
    """
    name = f"ruler-fwe-{length}-{seed}"
    chance = random.Random(name)
    drawn: dict[str, None] = {}
    while len(drawn) < max((length - FWE_ANSWER_TOKENS) // TOKENS_A_WORD, 8):
        drawn["".join(chance.choices(string.ascii_lowercase, k=LETTERS))] = None
    ranked = ["...", *list(drawn)[1:]]
    sizes = [counter.count(f" {word}") for word in ranked]
    after = f"\n\n{FWE_QUESTION}"

    def made(total: int) -> str:
        words = [
            word for word, times in zip(ranked, frequencies(total, len(ranked)), strict=True) for _ in range(times)
        ]
        random.Random(f"{name}-text").shuffle(words)
        return " ".join(words)

    def tokens(total: int) -> int:
        return sum(size * times for size, times in zip(sizes, frequencies(total, len(ranked)), strict=True))

    space = room(length, counter, FWE_ANSWER_TOKENS)
    total, measured = largest(lambda n: f"{FWE_BEFORE}{made(n)}{after}", tokens, 42, space, counter)
    return make_sample(
        name,
        before=FWE_BEFORE,
        context=made(total),
        after=after,
        question=FWE_QUESTION,
        targets=ranked[1 : 1 + FWE_TARGETS],
        length=length,
        counter=counter,
        answer_tokens=FWE_ANSWER_TOKENS,
        tokens=measured,
        vocabulary=len(ranked),
    )


def frequencies(total: int, ranks: int) -> list[int]:
    """How often the word of each rank stands in a text of some `total` words: total * rank^-2 / zeta(2), as a whole."""
    return [int(total / rank**2 / ZETA) for rank in range(1, ranks + 1)]


# -- both --------------------------------------------------------------------------------------------------------------


def largest(
    build: Callable[[int], str], tokens: Callable[[int], float], least: int, space: int, counter: TokenCounter
) -> tuple[int, int]:
    """The largest n (from `least` on) for which `build(n)` has at most `space` tokens, and how many it has.

    `tokens(n)` says nearly how many the part that grows with n takes; each count of a whole text corrects what it is
    off by. Raises UsageError when not even `least` fits.
    """
    frame = counter.count(build(least)) - tokens(least)
    if frame + tokens(least) > space:
        raise too_short(round(frame + tokens(least)), space)
    best = (least, round(frame + tokens(least)))
    high: int | None = None  # does not fit
    for _ in range(ROUNDS):
        n = _most(tokens, best[0], space - frame)
        if high is not None:
            n = min(n, high - 1)
        if n <= best[0]:
            break
        measured = counter.count(build(n))
        if measured <= space:
            best = (n, measured)
        else:
            high = n
        frame = measured - tokens(n)
    return best


def _most(tokens: Callable[[int], float], low: int, space: float) -> int:
    """The largest n from `low` on with `tokens(n) <= space`."""
    step = 1
    while tokens(low + step) <= space:
        low, step = low + step, step * 2
    while step > 1:
        step //= 2
        if tokens(low + step) <= space:
            low += step
    return low
