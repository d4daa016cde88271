"""Aggregates of rows: what every form of the report shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import Any

from longspan.evaluation.rows import Row
from longspan.evaluation.statistics import Difference, mean_of_scores, paired_bootstrap


@dataclass(frozen=True, slots=True)
class Cell:
    """One spec on one task, at one length or (`length` None) at all of them.

    `mean` with its 95 % interval is over the samples that were answered; `failed` of the `n` were not. Speeds are
    tokens a second, medians over samples; memory and cache are the largest; seconds, tokens, calls and cost are sums.
    """

    spec: str
    task: str
    length: int | None
    n: int
    failed: int
    mean: float
    low: float
    high: float
    above_window: bool
    prefill_speed: float | None
    decode_speed: float | None
    peak_bytes: int | None
    cache_bytes: int | None
    seconds: float
    calls: int
    input_tokens: int
    output_tokens: int
    cost: float | None


def cell(spec: str, task: str, length: int | None, rows: Sequence[Row]) -> Cell:
    scored = [row.score for row in rows if row.score is not None]
    found = mean_of_scores(scored)
    costs = [row.cost for row in rows if row.cost is not None]
    return Cell(
        spec,
        task,
        length,
        len(rows),
        sum(row.failed for row in rows),
        found.mean,
        found.low,
        found.high,
        any(row.above_window for row in rows),
        _speed((row.input_tokens - row.cached_tokens, row.prefill_seconds) for row in rows),
        _speed((row.output_tokens, row.decode_seconds) for row in rows),
        max((row.peak_bytes for row in rows if row.peak_bytes), default=None),
        max((row.cache_bytes for row in rows if row.cache_bytes), default=None),
        sum(row.seconds for row in rows),
        sum(row.calls for row in rows),
        sum(row.input_tokens for row in rows),
        sum(row.output_tokens for row in rows),
        sum(costs) if costs else None,
    )


def _speed(pairs: Iterable[tuple[int, float | None]]) -> float | None:
    speeds = [tokens / seconds for tokens, seconds in pairs if seconds and tokens > 0]
    return median(speeds) if speeds else None


def summarise(rows: Sequence[Row]) -> list[Cell]:
    """The cells of every spec and task, in the order of the rows: over all lengths first, then each length."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.spec, row.task].append(row)
    cells = []
    for (spec, task), members in groups.items():
        cells.append(cell(spec, task, None, members))
        by_length: dict[int, list[Row]] = defaultdict(list)
        for row in members:
            by_length[row.length].append(row)
        cells += [cell(spec, task, length, by_length[length]) for length in sorted(by_length)]
    return cells


@dataclass(frozen=True, slots=True)
class Pair:
    """Two specs on the samples of one task (None: of all) that both answered: `difference` is second minus first."""

    first: str
    second: str
    task: str | None
    difference: Difference


def pairs(rows: Sequence[Row]) -> list[Pair]:
    """Every pair of specs, over all tasks and (where there are several) on each."""
    scores: dict[str, dict[tuple[str, str, int], float]] = defaultdict(dict)
    for row in rows:
        if row.score is not None:
            scores[row.spec][row.task, row.sample, row.epoch] = row.score
    tasks = list(dict.fromkeys(row.task for row in rows))
    found = []
    for first, second in combinations(dict.fromkeys(row.spec for row in rows), 2):
        shared = [key for key in scores[first] if key in scores[second]]
        for task in [None, *tasks] if len(tasks) > 1 else [None]:
            keys = [key for key in shared if task in (None, key[0])]
            if keys:
                a, b = [scores[first][key] for key in keys], [scores[second][key] for key in keys]
                found.append(Pair(first, second, task, paired_bootstrap(a, b)))
    return found


def by_dimension(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For every dimension that tasks give (ability, difficulty ...): spec x value, with interval; largest groups only
    where a dimension has more than 40 values."""
    groups: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row.dimensions.items():
            if value is not None and row.score is not None:
                groups[name, str(value), row.spec].append(row.score)
    names = list(dict.fromkeys(name for name, _, _ in groups))
    found: list[dict[str, Any]] = []
    for name in names:
        values = list(dict.fromkeys(value for other, value, _ in groups if other == name))
        if not 1 < len(values) <= 40:
            continue
        for value in sorted(values):
            for (other, same, spec), scores in groups.items():
                if (other, same) == (name, value):
                    found.append({"dimension": name, "value": value, "spec": spec, **asdict(mean_of_scores(scores))})
    return found
