"""Effective context: the largest length at which a model's score stays above a threshold.

RULER's convention (arXiv:2404.06654) is a fixed threshold, 85.6 %, the score of Llama-2-7B at 4K; the relative one is a
share of the model's own score at the shortest length. Lengths are searched by bisection (scores are taken to fall with
length), and every length is tested sequentially: samples are drawn until a bet against "the mean score is at most the
threshold", or one against "it is at least that", has grown by 1 / alpha.

The bets are the capital process of Waudby-Smith and Ramdas (arXiv:2010.09686): with bets chosen before each score,
capital <- capital * (1 + bet * (score - threshold)) is a martingale if the mean is the threshold, so it ever exceeds
1 / alpha with probability at most alpha, however long one looks (Ville's inequality). It holds for any scores within
0 to 1, not only for right and wrong. `alpha` is divided by the number of lengths that bisection can visit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from longspan.errors import UsageError

RULER = 0.856  # the score of Llama-2-7B-chat at 4K (arXiv:2404.06654, section 4)
RELATIVE = 0.85  # of the score at the shortest length
STEP = 2**0.25  # neighbouring lengths of the search: four an octave
ROUND = 64  # lengths are multiples of this many tokens

Decision = Literal["above", "below", "undecided"]


@dataclass(slots=True)
class SequentialTest:
    """Whether the mean of scores (0 to 1) is above or below `threshold`, as soon as that is certain to 1 - alpha."""

    threshold: float
    alpha: float
    scores: list[float] = field(default_factory=list)
    _log_above: float = 0.0  # capital of the bet that the mean is above
    _log_below: float = 0.0

    def add(self, score: float) -> None:
        """Take one more score; the bets were fixed by those before it."""
        above, below = self._bets()
        gain = score - self.threshold
        self._log_above += math.log1p(above * gain)
        self._log_below += math.log1p(-below * gain)
        self.scores.append(score)

    def _bets(self) -> tuple[float, float]:
        """The fractions to bet, from the mean and variance so far (a prior score of a half), bounded so that capital
        stays positive: the growth-optimal bet is about (mean - threshold) / (variance + (mean - threshold)^2)."""
        n = len(self.scores)
        mean = (0.5 + sum(self.scores)) / (n + 1)
        variance = (0.25 + sum((score - mean) ** 2 for score in self.scores)) / (n + 1)
        edge = mean - self.threshold
        bet = edge / (variance + edge * edge)
        most_above, most_below = 0.9 / self.threshold, 0.9 / (1.0 - self.threshold)
        return min(max(bet, 0.25 * most_above), most_above), min(max(-bet, 0.25 * most_below), most_below)

    @property
    def decision(self) -> Decision:
        needed = math.log(1.0 / self.alpha)
        if self._log_above >= needed:
            return "above"
        return "below" if self._log_below >= needed else "undecided"

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores) if self.scores else math.nan


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found at one length. `certain` says that the sequential test decided, else the mean did."""

    length: int
    mean: float
    samples: int
    passed: bool
    certain: bool


@dataclass(frozen=True, slots=True)
class Effective:
    """The largest length that passed (0 if none did) and the smallest above it that failed (None if none did).

    `confidence` bounds the probability that any of the certain decisions is wrong.
    """

    length: int
    fails_at: int | None
    threshold: float
    confidence: float
    probes: tuple[Probe, ...]

    @property
    def certain(self) -> bool:
        """Whether the two lengths that bound the result were decided by the test, not by the mean alone."""
        bounds = {self.length, self.fails_at} - {0, None}
        return all(probe.certain for probe in self.probes if probe.length in bounds)


def effective_context(
    scores_at: Callable[[int, int], Sequence[float]],
    *,
    shortest: int,
    longest: int,
    threshold: float | None = RULER,
    confidence: float = 0.95,
    most: int = 48,
    tell: Callable[[Probe], None] | None = None,
) -> Effective:
    """Search the effective context between `shortest` and `longest` tokens.

    `scores_at(length, round)` draws a few new scores (0 to 1); `round` counts the draws at a length from 0. `threshold`
    None is the relative convention: RELATIVE of the mean at `shortest`, of `most` scores. `most` bounds the samples of
    a length: a test that is undecided by then is decided by the mean, and said not to be certain.
    """
    if not 0 < shortest <= longest:
        raise UsageError(f"There is no length between {shortest} and {longest}.")
    grid = lengths_between(shortest, longest)
    visits = 2 + math.ceil(math.log2(len(grid) + 1))
    alpha = (1.0 - confidence) / visits
    probes: list[Probe] = []

    def draw(length: int, test: SequentialTest | None) -> list[float]:
        drawn: list[float] = []
        for number in range(most):
            for score in scores_at(length, number):
                drawn.append(score)
                if test is not None and test.decision == "undecided":
                    test.add(score)
            if len(drawn) >= most or (test is not None and test.decision != "undecided"):
                break
        return drawn

    def note(probe: Probe) -> bool:
        probes.append(probe)
        if tell is not None:
            tell(probe)
        return probe.passed

    def passes(length: int) -> bool:
        test = SequentialTest(limit, alpha)
        drawn = draw(length, test)
        mean = sum(drawn) / len(drawn)
        certain = test.decision != "undecided"
        return note(Probe(length, mean, len(drawn), test.decision == "above" if certain else mean >= limit, certain))

    if threshold is None:
        first = draw(grid[0], None)
        mean = sum(first) / len(first)
        limit = RELATIVE * mean
        if mean == 0.0:
            note(Probe(grid[0], mean, len(first), False, True))
            return Effective(0, grid[0], 0.0, confidence, tuple(probes))
        note(Probe(grid[0], mean, len(first), True, True))
    else:
        limit = threshold
        if not 0.0 < limit < 1.0:
            raise UsageError(f"A threshold of {limit} decides nothing: give a score between 0 and 1.")
        if not passes(grid[0]):
            return Effective(0, grid[0], limit, confidence, tuple(probes))
    low, high = 0, len(grid)  # grid[low] passed; grid[high] failed or is beyond the longest
    if len(grid) > 1 and passes(grid[-1]):
        return Effective(grid[-1], None, limit, confidence, tuple(probes))
    high = len(grid) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if passes(grid[middle]):
            low = middle
        else:
            high = middle
    fails_at = grid[high] if high > low else None
    return Effective(grid[low], fails_at, limit, confidence, tuple(probes))


def lengths_between(shortest: int, longest: int) -> list[int]:
    """The lengths that the search may try: STEP apart, rounded, both ends included."""
    grid, exact = [shortest], float(shortest)
    while (exact := exact * STEP) < longest / math.sqrt(STEP):
        rounded = round(exact / ROUND) * ROUND
        if grid[-1] < rounded < longest:
            grid.append(rounded)
    return [*grid, longest] if longest > shortest else grid
