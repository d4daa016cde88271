"""The words of a question that carry its meaning, as stems, and how a text covers them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

import snowballstemmer

_WORD = re.compile(r"[^\W_]+", re.UNICODE)

# Words that shape a question rather than say what it is about.
STOP = frozenset(
    """a about after all also am an and any are as at be because been before being between both but by can could did
    do does doing done during each either else ever every for from get gets give given gives had has have having he her
    here him his how i if in into is it its itself just let like made make makes many may me might more most much must
    my name named need needs neither no nor not of off on once one only or other our out over own per please same say
    says shall she should show so some such take tell than that the their them then there these they thing this those
    through to too under until up use used uses using very was we were what whatever when where whether which while who
    whom whose why will with within without work would you your s t d ll re ve m don doesn isn aren wasn didn
    won""".split()
)

_stemmer = snowballstemmer.stemmer("english")


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return str(_stemmer.stemWord(word))


def stems(text: str) -> list[str]:
    """The stems of all words of `text`, in order, lower-case."""
    return [_stem(word) for word in _WORD.findall(text.lower())]


def content_words(question: str) -> list[str]:
    """The question's distinct content words as written (lower-case), in order; all its words if none has content."""
    words = list(dict.fromkeys(_WORD.findall(question.lower())))
    return [word for word in words if word not in STOP] or words


def coverage(weights: dict[str, float], text_stems: Iterable[str]) -> float:
    """The share (0 to 1) of the stems' total weight that occurs among `text_stems`."""
    present = set(text_stems)
    total = sum(weights.values())
    return sum(weight for stem, weight in weights.items() if stem in present) / total if total else 0.0
