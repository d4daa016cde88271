"""Toy reproductions: figures by seed, or an exception, as the test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from longspan.reproductions import harness
from longspan.reproductions.harness import Figures, Run, Verdict, reproduce

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Toy:
    """A reproduction whose measure calls `does`, and a count of the calls."""

    slug = "toy-1.5"

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.does: Callable[[Run], Figures] = lambda run: {"gain": 0.2 + run.seed / 100, "cost": 3.0}
        self.draws: Callable[[Sequence[Figures], Figure], None] = self._draws

    def measure(self, run: Run) -> Figures:
        self.runs.append(run)
        return self.does(run)

    def judge(self, figures: Sequence[Figures]) -> Verdict:
        gain = sum(each["gain"] for each in figures) / len(figures)
        if abs(gain) < 0.1:
            return Verdict("inconclusive", f"the gain is {gain:.2f}")
        return Verdict("holds" if gain > 0 else "does not hold at this scale", f"the gain is {gain:.2f}")

    def _draws(self, figures: Sequence[Figures], figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([each["gain"] for each in figures], marker="o")
        axes.set_xlabel("seed")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    """A registered toy; nothing is read from or written to outside the test's folder."""
    monkeypatch.setenv("LONGSPAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(harness, "REPRODUCTIONS", {})
    monkeypatch.setattr(harness, "modules", lambda: [])
    monkeypatch.setattr(harness, "checkout", lambda: None)
    toy = Toy()
    reproduce(
        slug=toy.slug,
        title="A Toy",
        year=2023,
        paper="arXiv:2301.00001",
        claim="It gains.",
        setting="Two numbers.",
        baseline="Zero.",
        criterion="Holds where the mean gain is above 0.1, does not where it is below -0.1.",
        judge=toy.judge,
        plot=lambda figures, figure: toy.draws(figures, figure),
    )(toy.measure)
    yield toy
