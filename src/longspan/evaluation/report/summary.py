"""What a report says, as figures: rows by spec, task and length, dimensions, paired differences, the Pareto front."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from longspan.errors import LongspanError
from longspan.evaluation.rows import Row
from longspan.evaluation.statistics import (
    Difference,
    Estimate,
    holm,
    mean_interval,
    mean_of,
    paired_bootstrap,
    perplexity_change,
    perplexity_interval,
)

ALL_PAIRS = 8  # specs of which every pair is compared; of more, each with the first
MOST_VALUES = 24  # a dimension of more values is no dimension: a name, a number


@dataclass(frozen=True, slots=True)
class Cell:
    """The rows of one spec for a task (None: all) and a length (None: all).

    `score` is over samples that have an answer (its `n`); repetitions of a sample are averaged first. Over all tasks it
    is the mean of `tasks` tasks' means, without perplexities where there is anything else. `failed` counts the rows
    without an answer, of `rows`; `with_failed` is the mean if those count as wrong. Tokens are sums, rates tokens per
    second, `seconds` per row, `cost` the sum (None: not known of every row), memory and cache the largest.
    """

    spec: str
    task: str | None
    length: int | None
    score: Estimate | None
    with_failed: float
    tasks: int
    rows: int
    failed: int
    above_window: bool
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    seconds: float
    prefill_rate: float | None
    decode_rate: float | None
    peak_bytes: int | None
    cache_bytes: int | None
    cost: float | None


@dataclass(frozen=True, slots=True)
class Spot:
    """One cell of a heat map: the mean over `n` answers at a length and a depth (0 the beginning, 1 the end)."""

    length: int
    depth: float
    score: float | None
    n: int
    failed: int
    above_window: bool


@dataclass(frozen=True, slots=True)
class Contrast:
    """`a` against `b` on the samples that both answered, of a task (None: all, each task counting alike). `adjusted`
    is p corrected for all the comparisons of the report (Holm)."""

    a: str
    b: str
    task: str | None
    difference: Difference
    adjusted: float


@dataclass(frozen=True, slots=True)
class Group:
    """The score of a spec over the rows of a task of which a dimension has a value."""

    spec: str
    task: str
    dimension: str
    value: str
    score: Estimate | None
    failed: int


@dataclass(slots=True)
class Summary:
    """All figures of a report. Specs and tasks stand in the order in which they first occur."""

    specs: list[str]
    tasks: list[str]
    lengths: list[int]
    cells: dict[tuple[str, str | None, int | None], Cell]
    heat: dict[tuple[str, str], list[Spot]]  # by task and spec
    contrasts: list[Contrast]
    groups: list[Group]
    notes: list[str] = field(default_factory=list)


def summarise(rows: Sequence[Row]) -> Summary:
    """The figures of `rows`. Raises LongspanError where a score is not 0 to 1: such a task needs a scorer that is."""
    if not rows:
        raise LongspanError("There is nothing to report: no sample has been run.")
    for row in rows:
        if row.score is not None and not 0 <= row.score <= 1:
            raise LongspanError(
                f"The score {row.score} of sample {row.sample} in {row.task} is not between 0 and 1, so it cannot be "
                "averaged with others: scale it in the task's scorer."
            )
    by_cell: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    by_task: dict[tuple[str, str], list[Row]] = defaultdict(list)
    by_length: dict[tuple[str, int], list[Row]] = defaultdict(list)
    by_spec: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_cell[row.spec, row.task, row.length].append(row)
        by_task[row.spec, row.task].append(row)
        by_length[row.spec, row.length].append(row)
        by_spec[row.spec].append(row)
    specs, tasks = list(by_spec), list(dict.fromkeys(row.task for row in rows))
    lengths = sorted({row.length for row in rows})
    cells: dict[tuple[str, str | None, int | None], Cell] = {}
    for (spec, task, length), held in by_cell.items():
        cells[spec, task, length] = _cell(spec, task, length, held, [_score(held)])
    for (spec, task), held in by_task.items():
        cells[spec, task, None] = _cell(spec, task, None, held, [_score(held)])
    for (spec, length), held in by_length.items():
        over = [cells[spec, task, length].score for task in averaged(tasks) if (spec, task, length) in cells]
        cells[spec, None, length] = _cell(spec, None, length, held, over)
    for spec, held in by_spec.items():
        over = [cells[spec, task, None].score for task in averaged(tasks) if (spec, task, None) in cells]
        cells[spec, None, None] = _cell(spec, None, None, held, over)
    heat = {(task, spec): spots for task in tasks for spec in specs if (spots := _spots(by_task.get((spec, task), [])))}
    contrasts = _contrasts(specs, tasks, by_task)
    groups, left_out = _groups(by_task)
    return Summary(specs, tasks, lengths, cells, heat, contrasts, groups, _notes(specs, tasks, cells, left_out))


def _answered(row: Row) -> bool:
    return not row.failed and row.score is not None


def _by_sample(rows: Iterable[Row]) -> dict[str, float]:
    """The mean score of each sample over its repetitions, of those that have an answer."""
    held: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if not row.failed and row.score is not None:
            held[row.sample].append(row.score)
    return {sample: math.fsum(scores) / len(scores) for sample, scores in held.items()}


def is_perplexity(task: str) -> bool:
    """Whether the task's score is 1 / perplexity."""
    return task.rpartition("/")[2].startswith("perplexity")


def averaged(tasks: Sequence[str]) -> list[str]:
    """The tasks of which a mean says something: those with right and wrong answers, if there are any."""
    return [task for task in tasks if not is_perplexity(task)] or list(tasks)


def _score(rows: Sequence[Row]) -> Estimate | None:
    scores = list(_by_sample(rows).values())
    if not scores:
        return None
    return perplexity_interval(scores) if is_perplexity(rows[0].task) else mean_interval(scores)


def _cell(
    spec: str, task: str | None, length: int | None, rows: Sequence[Row], over: Sequence[Estimate | None]
) -> Cell:
    known = [score for score in over if score is not None]
    prefilled = [row for row in rows if row.prefill_seconds]
    decoded = [row for row in rows if row.decode_seconds]
    costs = [row.cost for row in rows if row.cost is not None]
    return Cell(
        spec=spec,
        task=task,
        length=length,
        score=mean_of(known) if known else None,
        with_failed=_mean_with_failed(rows),
        tasks=len(known),
        rows=len(rows),
        failed=sum(not _answered(row) for row in rows),
        above_window=any(row.above_window for row in rows),
        input_tokens=sum(row.input_tokens for row in rows),
        cached_tokens=sum(row.cached_tokens for row in rows),
        output_tokens=sum(row.output_tokens for row in rows),
        seconds=math.fsum(row.seconds for row in rows) / len(rows),
        prefill_rate=_rate(
            sum(row.input_tokens - row.cached_tokens for row in prefilled),
            math.fsum(row.prefill_seconds or 0 for row in prefilled),
        ),
        decode_rate=_rate(
            sum(row.output_tokens for row in decoded), math.fsum(row.decode_seconds or 0 for row in decoded)
        ),
        peak_bytes=max((row.peak_bytes for row in rows if row.peak_bytes is not None), default=None),
        cache_bytes=max((row.cache_bytes for row in rows if row.cache_bytes is not None), default=None),
        cost=math.fsum(costs) if len(costs) == len(rows) else None,
    )


def _mean_with_failed(rows: Sequence[Row]) -> float:
    """The mean over tasks of the mean over rows, a row without an answer counting as 0."""
    by_task: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        by_task[row.task].append(row.score if row.score is not None and not row.failed else 0.0)
    return math.fsum(math.fsum(scores) / len(scores) for scores in by_task.values()) / len(by_task)


def _rate(tokens: int, seconds: float) -> float | None:
    return tokens / seconds if seconds > 0 and tokens > 0 else None


DEPTHS = 10  # bands that depths are put in where there are more than this and one


def _spots(rows: Sequence[Row]) -> list[Spot]:
    deep = [row for row in rows if row.depth is not None]
    values = {row.depth for row in deep}
    places: dict[tuple[int, float], list[Row]] = defaultdict(list)
    for row in deep:
        assert row.depth is not None
        banded = row.depth if len(values) <= DEPTHS + 1 else round(row.depth * DEPTHS) / DEPTHS
        places[row.length, banded].append(row)
    spots = []
    for (length, depth), held in sorted(places.items()):
        scores = list(_by_sample(held).values())
        spots.append(
            Spot(
                length,
                depth,
                math.fsum(scores) / len(scores) if scores else None,
                len(scores),
                sum(not _answered(row) for row in held),
                any(row.above_window for row in held),
            )
        )
    return spots


def _contrasts(specs: Sequence[str], tasks: Sequence[str], by_task: dict[tuple[str, str], list[Row]]) -> list[Contrast]:
    scores = {key: _by_sample(rows) for key, rows in by_task.items()}
    found: list[tuple[str, str, str | None, Difference]] = []
    pairs = combinations(specs, 2) if len(specs) <= ALL_PAIRS else ((specs[0], spec) for spec in specs[1:])
    for b, a in pairs:  # what comes later is told by what came before it
        left: dict[str, float] = {}
        right: dict[str, float] = {}
        weights: dict[str, float] = {}
        common = [task for task in tasks if scores.get((a, task), {}).keys() & scores.get((b, task), {}).keys()]
        for task in common:
            mine, theirs = scores[a, task], scores[b, task]
            found.append((a, b, task, (perplexity_change if is_perplexity(task) else paired_bootstrap)(mine, theirs)))
            if task not in averaged(common):
                continue
            shared = mine.keys() & theirs.keys()
            for sample in shared:
                key = f"{task}\n{sample}"
                left[key], right[key], weights[key] = mine[sample], theirs[sample], 1 / len(shared)
        if len(common) > 1 and all(map(is_perplexity, common)):
            found.append((a, b, None, perplexity_change(left, right)))
        elif len(common) > 1:
            found.append((a, b, None, paired_bootstrap(left, right, weights=weights)))
        elif common:
            found.append((a, b, None, found[-1][3]))
    # With one task, "all tasks" is that task again and no comparison of its own.
    counted = [at for at, (_, _, task, _) in enumerate(found) if len(tasks) > 1 or task is not None]
    adjusted = dict(zip(counted, holm([found[at][3].p for at in counted]), strict=True))
    return [
        Contrast(a, b, task, difference, adjusted.get(at, adjusted.get(at - 1, difference.p)))
        for at, (a, b, task, difference) in enumerate(found)
    ]


def _groups(by_task: dict[tuple[str, str], list[Row]]) -> tuple[list[Group], list[str]]:
    values: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)  # the values of a task's dimension, in order
    places: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
    for (spec, task), rows in by_task.items():
        for row in rows:
            for name, value in row.dimensions.items():
                if value is None:
                    continue
                text = f"{value:g}" if isinstance(value, float) else str(value)
                values[task, name][text] = None
                places[spec, task, name, text].append(row)
    groups = []
    for (spec, task, name, text), held in places.items():
        if 1 < len(values[task, name]) <= MOST_VALUES:
            failed = sum(not _answered(row) for row in held)
            groups.append(Group(spec, task, name, text, _score(held), failed))
    left_out = sorted({name for (_, name), texts in values.items() if len(texts) > MOST_VALUES})
    return groups, left_out


def _notes(
    specs: Sequence[str],
    tasks: Sequence[str],
    cells: dict[tuple[str, str | None, int | None], Cell],
    left_out: Sequence[str],
) -> list[str]:
    """What a reader must know to read the figures right."""
    notes = []
    for spec in specs:
        missing = [task for task in tasks if (spec, task, None) not in cells]
        if missing:
            notes.append(f"{spec} was not run on {', '.join(missing)}: its mean over tasks is over the others alone.")
        silent = [task for task in tasks if (spec, task, None) in cells and cells[spec, task, None].score is None]
        if silent:
            notes.append(f"{spec} failed on every sample of {', '.join(silent)}: its mean is over the other tasks.")
    for task in tasks:
        lengths = {
            spec: frozenset(n for (one, of, n) in cells if one == spec and of == task and n is not None)
            for spec in specs
            if (spec, task, None) in cells
        }
        if len(set(lengths.values())) > 1:
            notes.append(f"The specs were run at different lengths of {task}: compare them length by length.")
    if len(specs) > ALL_PAIRS:
        notes.append(f"There are {len(specs)} specs: differences are told to the first of them, {specs[0]}, alone.")
    if left_out:
        notes.append(f"Not grouped by {', '.join(left_out)}: more than {MOST_VALUES} values.")
    return notes


def spending(summary: Summary) -> tuple[str, dict[str, float]]:
    """What an answer costs each spec, in one unit that is known of all: money, else seconds, else tokens."""
    total = {spec: summary.cells[spec, None, None] for spec in summary.specs}
    if all(cell.cost is not None for cell in total.values()) and any(cell.cost for cell in total.values()):
        return "currency units", {spec: (cell.cost or 0.0) / cell.rows for spec, cell in total.items()}
    if all(cell.seconds > 0 for cell in total.values()):
        return "seconds", {spec: cell.seconds for spec, cell in total.items()}
    return "tokens", {
        spec: (cell.input_tokens - cell.cached_tokens + cell.output_tokens) / cell.rows for spec, cell in total.items()
    }


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The (cost, quality) points that no other beats, by cost ascending: none is as cheap and better, or as good and
    cheaper. Points that are equal stay together."""
    front: list[int] = []
    for at in sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1])):
        if not front or points[at][1] > points[front[-1]][1] or points[at] == points[front[-1]]:
            front.append(at)
    return front


def figures(summary: Summary) -> dict[str, Any]:
    """The summary as JSON can hold it; what is not known is null."""

    def estimate(score: Estimate | None) -> dict[str, Any]:
        if score is None:
            return {"n": 0, "mean": None, "interval": None}
        return {"n": score.n, "mean": score.value, "interval": [score.low, score.high]}

    unit, costs = spending(summary)
    scored = [(spec, cell.score.value) for spec in costs if (cell := summary.cells[spec, None, None]).score]
    front = pareto([(costs[spec], value) for spec, value in scored])
    return {
        "specs": summary.specs,
        "tasks": summary.tasks,
        "lengths": summary.lengths,
        "cells": [
            {
                "spec": cell.spec,
                "task": cell.task,
                "length": cell.length,
                **estimate(cell.score),
                "mean_if_failed_are_wrong": cell.with_failed,
                **{
                    name: getattr(cell, name)
                    for name in Cell.__slots__
                    if name not in ("spec", "task", "length", "score", "with_failed")
                },
            }
            for cell in summary.cells.values()
        ],
        "depths": [
            {
                "task": task,
                "spec": spec,
                "length": spot.length,
                "depth": spot.depth,
                "n": spot.n,
                "mean": spot.score,
                "failed": spot.failed,
            }
            for (task, spec), spots in summary.heat.items()
            for spot in spots
        ],
        "dimensions": [
            {
                "spec": group.spec,
                "task": group.task,
                "dimension": group.dimension,
                "value": group.value,
                **estimate(group.score),
                "failed": group.failed,
            }
            for group in summary.groups
        ],
        "differences": [
            {
                "a": one.a,
                "b": one.b,
                "task": one.task,
                "n": one.difference.n,
                "difference": one.difference.value,
                "unit": "share of the perplexity" if one.difference.perplexity else "score",
                "interval": [one.difference.low, one.difference.high],
                "p": one.difference.p,
                "p_adjusted": one.adjusted,
            }
            for one in summary.contrasts
        ],
        "quality_against_cost": {"unit": f"{unit} an answer", "cost": costs, "front": [scored[at][0] for at in front]},
        "notes": summary.notes,
    }
