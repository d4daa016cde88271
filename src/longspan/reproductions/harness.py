"""What a reproduction is, and how it is run: seeds, timing, record of the machine, JSON, plot, verdict.

A module of this package declares one `Reproduction` under `@reproduce(...)`:

    @reproduce(slug="m4le", title=..., year=2023, paper="arXiv:2310.19240", claim=..., setting=..., baseline=...,
               criterion=..., judge=judge, plot=plot)
    def measure(run: Run) -> dict[str, float]: ...

`measure` is called once a seed and returns that seed's figures by name; `judge` gets the list of them, one a seed,
and says *holds*, *does not hold at this scale* or *inconclusive* with a sentence: the rule that `criterion` states in
words, written before the run. `plot` draws them on a matplotlib figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Figures = dict[str, float]
Outcome = Literal["holds", "does not hold at this scale", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    reason: str  # one sentence with the figures


@dataclass(frozen=True, slots=True)
class Run:
    """One seed's run. `quick` asks for a variant of under a minute in all; `folder` is scratch that survives an
    interruption (keep partial results there); `tell` shows progress."""

    seed: int
    quick: bool
    folder: Path
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A published claim and the experiment here. `setting` and `baseline` say what is measured on what, against what
    of equal cost; `criterion` is `judge` in words."""

    slug: str
    title: str
    year: int
    paper: str
    claim: str
    setting: str
    baseline: str
    criterion: str
    measure: Callable[[Run], Figures]
    judge: Callable[[Sequence[Figures]], Verdict]
    plot: Callable[[Sequence[Figures], Figure], None]


REPRODUCTIONS: dict[str, Reproduction] = {}


def reproduce(
    *,
    slug: str,
    title: str,
    year: int,
    paper: str,
    claim: str,
    setting: str,
    baseline: str,
    criterion: str,
    judge: Callable[[Sequence[Figures]], Verdict],
    plot: Callable[[Sequence[Figures], Figure], None],
) -> Callable[[Callable[[Run], Figures]], Callable[[Run], Figures]]:
    """Register the decorated function as what one seed of `slug` measures."""

    def note(measure: Callable[[Run], Figures]) -> Callable[[Run], Figures]:
        REPRODUCTIONS[slug] = Reproduction(
            slug, title, year, paper, claim, setting, baseline, criterion, measure, judge, plot
        )
        return measure

    return note
