"""Haystacks: long texts of just the tokens asked for, with needles between their sentences.

Three kinds, or a file of one's own:

- `noise`: RULER's five sentences, one line of them after the other;
- `repeated`: one passage of real text, chosen by the seed, over and over;
- `real`: running prose of this Python's own documentation, from a place chosen by the seed;
- anything else is a path: a file or folder in any format that `longspan ask` reads.

A source is encoded once; a haystack is then a slice of it, and the whole prompt is counted once or twice.
"""

from __future__ import annotations

import os
import random
import re
import sysconfig
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

from longspan.corpus import Corpus, sentences
from longspan.errors import UsageError
from longspan.evaluation.lengths import TokenCounter

KINDS = ("noise", "repeated", "real")
NOISE = ("The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again.")
PASSAGE = 5  # sentences of a repeated passage
PLACES = 64  # where a slice of real text might begin; the one that fills the room best is taken
ROUNDS = 16  # counts of a prompt at most; two are usual
NOT_DOCUMENTATION = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "pydoc_data"}


@dataclass(frozen=True, slots=True)
class Source:
    """What haystacks are cut from, over and over: `pieces` are sentences, each with the blank or line end before it.

    `ends[i]` is how many tokens the first i of them take. Needles stand before every `stride`-th piece, after `joint`.
    """

    pieces: tuple[str, ...]
    ends: tuple[int, ...]
    stride: int = 1
    joint: str = " "

    def tokens(self, first: int, n: int) -> int:
        """How many tokens the `n` pieces from `first` on take."""
        return self._before(first + n) - self._before(first)

    def most(self, first: int, room: int) -> int:
        """How many pieces from `first` on fit into `room` tokens."""
        rounds, rest = divmod(self._before(first) + max(room, 0), self.ends[-1])
        return rounds * len(self.pieces) + bisect_right(self.ends, rest, hi=len(self.pieces)) - 1 - first

    def piece(self, at: int) -> str:
        return self.pieces[at % len(self.pieces)]

    def _before(self, at: int) -> int:
        rounds, rest = divmod(at, len(self.pieces))
        return rounds * self.ends[-1] + self.ends[rest]


def source_of(pieces: Sequence[str], counter: TokenCounter, stride: int = 1, joint: str = " ") -> Source:
    """A source of these pieces; they are encoded here, as one text."""
    starts = counter.starts("".join(pieces))
    ends, at = [0], 0
    for piece in pieces:
        at += len(piece)
        ends.append(bisect_right(starts, at - 1, lo=ends[-1]))
    return Source(tuple(pieces), tuple(ends), stride, joint)


@dataclass(frozen=True, slots=True)
class Hidden:
    """A haystack with its needles. `depths` say for each needle which share of the hay's tokens stands before it,
    `tokens` how many the whole prompt has."""

    context: str
    depths: tuple[float, ...]
    tokens: int


Positions = Callable[[Sequence[float]], Sequence[int]]


def at_depths(depths: Sequence[float]) -> Positions:
    """Each needle at the place that is nearest to its depth (0 to 1, ascending), in tokens."""

    def positions(shares: Sequence[float]) -> list[int]:
        found = []
        for depth in depths:
            after = min(bisect_left(shares, depth), len(shares) - 1)
            found.append(after - 1 if after and depth - shares[after - 1] < shares[after] - depth else after)
        return found

    return positions


def hide(
    needles: Sequence[str],
    positions: Positions,
    *,
    haystack: str | Source,
    before: str,
    after: str,
    room: int,
    counter: TokenCounter,
    seed: str,
) -> Hidden:
    """Hay around `needles` so that `before + context + after` has as close to `room` tokens as whole sentences allow,
    never more.

    `positions(shares)` chooses a place for each needle, ascending, as indices into `shares`: which share of the hay
    stands before each place, from 0 before the first sentence to 1 after the last. It is asked again whenever the hay
    changes. Raises UsageError when the room is too small.
    """
    chance = random.Random(f"hay-{seed}")
    source = haystack if isinstance(haystack, Source) else _source(haystack, room, counter, chance)
    firsts = [0]
    if haystack not in ("noise", "repeated") and not isinstance(haystack, Source):
        start = chance.randrange(len(source.pieces))
        firsts = [(start + more) % len(source.pieces) for more in range(min(PLACES, len(source.pieces)))]
    frame = counter.count(f"{before}{source.joint.join(needles)}{after}")
    least = _least(positions, source.stride)
    needed = frame + source.tokens(0, least)
    if needed > room:
        raise too_short(needed, room)
    budget = room - frame
    tried: dict[tuple[int, int], Hidden] = {}
    best: Hidden | None = None
    for _ in range(ROUNDS):
        first = min(firsts, key=lambda at: budget - source.tokens(at, source.most(at, budget)))
        n = max(source.most(first, budget), least)
        if (first, n) in tried:
            if best is not None:
                break
            budget -= 1 + budget // 100
            continue
        made = _made(source, first, n, needles, positions)
        made = replace(made, tokens=counter.count(f"{before}{made.context}{after}"))
        tried[first, n] = made
        if made.tokens <= room and (best is None or made.tokens > best.tokens):
            best = made
            if room - made.tokens <= room // 500:
                break
        budget += room - made.tokens
    if best is None:
        raise too_short(needed, room)
    return best


def too_short(needed: int, room: int) -> UsageError:
    return UsageError(
        f"The length is too short for this task: its prompt needs at least {needed} tokens, and beside the chat "
        f"template and the answer there is room for {max(room, 0)}."
    )


def _least(positions: Positions, stride: int) -> int:
    """The fewest pieces of hay that have places enough: where needles stand apart, each needs one of its own."""
    for places in range(64):
        try:
            positions([at / max(places, 1) for at in range(places + 1)])
        except ValueError:  # random.sample of more than there are
            continue
        return places * stride
    raise UsageError("Too many needles: give at most 60.")


def _made(source: Source, first: int, n: int, needles: Sequence[str], positions: Positions) -> Hidden:
    # A line that is begun at the end counts with the one before it.
    places = [*(line * source.stride for line in range(n // source.stride)), n]
    total = max(source.tokens(first, n), 1)
    shares = [source.tokens(first, place) / total for place in places]
    at = positions(shares)
    parts: list[str] = []
    done = 0
    for needle, position in zip(needles, at, strict=True):
        parts += (source.piece(first + i) for i in range(done, places[position]))
        parts.append(source.joint + needle)
        done = places[position]
    parts += (source.piece(first + i) for i in range(done, n))
    return Hidden("".join(parts).lstrip(), tuple(shares[position] for position in at), 0)


def _source(haystack: str, room: int, counter: TokenCounter, chance: random.Random) -> Source:
    if haystack == "noise":
        return _noise(counter)
    if haystack == "repeated":
        pieces = _sentences("real", more=False)
        start = chance.randrange(len(pieces) - PASSAGE)
        return source_of(pieces[start : start + PASSAGE], counter)
    if haystack not in KINDS and not Path(haystack).exists():
        raise UsageError(f"There is no haystack {haystack!r}: give {', '.join(KINDS)}, or the path of a text.")
    source = _text(haystack, counter, more=False)
    if haystack == "real" and room > source.ends[-1] // 2:  # so that samples differ in their hay
        source = _text(haystack, counter, more=True)
    return source


@lru_cache(maxsize=4)
def _noise(counter: TokenCounter) -> Source:
    pieces = [("\n" if i == 0 else " ") + sentence for i, sentence in enumerate(NOISE)]
    return source_of(pieces, counter, stride=len(NOISE), joint="\n")


@lru_cache(maxsize=8)
def _text(haystack: str, counter: TokenCounter, more: bool) -> Source:
    return source_of(_sentences(haystack, more), counter)


@lru_cache(maxsize=8)
def _sentences(haystack: str, more: bool) -> tuple[str, ...]:
    """The sentences of a text, their white space made single blanks, each with a blank before it."""
    if haystack == "real":
        texts: Sequence[str] = prose(more)
    else:
        texts = [document.text for document in Corpus.open([haystack]).documents()]
    found = [" " + " ".join(text[part.start : part.end].split()) for text in texts for part in sentences(text)]
    if len(found) <= PASSAGE:
        raise UsageError(f"{haystack} has only {len(found)} sentences: give a longer text as the haystack.")
    return tuple(found)


# -- the prose of this Python -----------------------------------------------------------------------------------------


@cache
def prose(more: bool = False) -> tuple[str, ...]:
    """Paragraphs of running English from this Python's documentation, each once, without line ends.

    They come from its help topics (some 47 000 tokens), with `more` also from the docstrings of its standard library
    (some 260 000 in all). What is code, a table or a heading is left out.
    """
    from pydoc_data.topics import topics

    texts = [topics[name] for name in sorted(topics)]
    if more:
        texts += [doc for _, source in standard_library() for doc in re.findall(r'"""(.*?)"""', source, re.DOTALL)]
    flat = (" ".join(paragraph.split()) for text in texts for paragraph in re.split(r"\n\s*\n", text))
    return tuple(dict.fromkeys(paragraph for paragraph in flat if is_prose(paragraph)))


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is made of English sentences, as far as its characters tell."""
    if len(paragraph) < 40 or not re.match(r"[A-Z\"'(]", paragraph) or paragraph[-1] not in ".:":
        return False
    letters = sum(char.isalpha() or char == " " for char in paragraph)
    return letters >= 0.9 * len(paragraph) and ">>>" not in paragraph and "::=" not in paragraph


@cache
def standard_library() -> tuple[tuple[str, str], ...]:
    """(dotted name, source) of the modules of the standard library that are there as sources, by name."""
    root = Path(sysconfig.get_path("stdlib"))
    found = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in NOT_DOCUMENTATION]
        for path in (Path(folder, name) for name in files if name.endswith(".py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return tuple((name, found[name].read_text(encoding="utf-8", errors="replace")) for name in sorted(found))
