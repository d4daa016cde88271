"""The report as one page: no connections, no script needed to read it, light and dark, phone and desktop."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from longspan import __version__
from longspan.errors import LongspanError
from longspan.evaluation.report import charts
from longspan.evaluation.report.summary import by_dimension, cell, pairs, summarise
from longspan.evaluation.report.terminal import percent, short, size, speed
from longspan.evaluation.rows import Row

COLOURS = 8  # then they begin again
SHOWN = 200  # answers of a task that are shown to read
ANSWER = 1200  # characters of an answer that are shown


def write_html(rows: Sequence[Row], file: Path, title: str) -> None:
    """Write the page; it appears whole or not at all."""
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(render(rows, title), encoding="utf-8", errors="replace")
        part.replace(file)
    except OSError as error:
        raise LongspanError(f"Cannot write the report to {file}: {error.strerror or error}.") from error


def render(rows: Sequence[Row], title: str) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("longspan.evaluation.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, size=size, speed=speed, short=short)
    specs = list(dict.fromkeys(row.spec for row in rows))
    tasks = list(dict.fromkeys(row.task for row in rows))
    colour = {spec: i % COLOURS for i, spec in enumerate(specs)}
    cells = summarise(rows)
    return environment.get_template("page.html.j2").render(
        title=title,
        date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
        specs=specs,
        tasks=tasks,
        colour=colour,
        samples=len(rows),
        failed=sum(row.failed for row in rows),
        whole={(each.task, each.spec): each for each in cells if each.length is None},
        totals=[cell(spec, "", None, [row for row in rows if row.spec == spec]) for spec in specs],
        above=any(row.above_window for row in rows),
        lines=[(task, _lines(task, cells, colour, rows)) for task in tasks],
        maps=_maps(rows, specs, tasks),
        cost=_cost(rows, specs, colour),
        differences=pairs(rows),
        dimensions=_dimensions(rows),
        answers=[_answers(task, [row for row in rows if row.task == task]) for task in tasks],
    )


def _lines(task: str, cells: Sequence[Any], colour: dict[str, int], rows: Sequence[Row]) -> Markup:
    series = []
    for spec, number in colour.items():
        points = [
            (float(each.length), each.mean, each.low, each.high)
            for each in cells
            if (each.spec, each.task) == (spec, task) and each.length and each.mean == each.mean
        ]
        if points:
            series.append(charts.Series(spec, number, points))
    inside = [row.length for row in rows if row.task == task and not row.above_window]
    outside = [row.length for row in rows if row.task == task and row.above_window]
    window = [(max(inside) * min(outside)) ** 0.5] if inside and outside else []
    return charts.lines(series, window)


def _maps(rows: Sequence[Row], specs: Sequence[str], tasks: Sequence[str]) -> list[tuple[str, str, Markup]]:
    """A heat map for each spec and task with several depths."""
    found = []
    for task in tasks:
        depths = {row.depth for row in rows if row.task == task and row.depth is not None}
        digits = 2 if len(depths) <= 12 else 1  # depths drawn at random are put together by tenths
        for spec in specs:
            scores: dict[tuple[float, float], list[float]] = defaultdict(list)
            beyond: list[int] = []
            for row in rows:
                if row.task == task and row.spec == spec and row.depth is not None and row.score is not None:
                    scores[float(row.length), round(row.depth, digits)].append(row.score)
                    if row.above_window:
                        beyond.append(row.length)
            if len({depth for _, depth in scores}) > 1:
                values = {key: (sum(each) / len(each), len(each)) for key, each in scores.items()}
                found.append((task, spec, charts.heat_map(values, min(beyond) - 1 if beyond else None)))
    return found


def _cost(rows: Sequence[Row], specs: Sequence[str], colour: dict[str, int]) -> tuple[Markup, str]:
    """Quality against cost: money where it is known of every spec, else seconds a sample."""
    totals = {spec: cell(spec, "", None, [row for row in rows if row.spec == spec]) for spec in specs}
    money = all(each.cost is not None for each in totals.values())
    unit = "cost of a sample" if money else "seconds a sample"
    points = [
        charts.Point(
            spec, colour[spec], ((each.cost or 0.0) if money else each.seconds) / each.n, each.mean, each.low, each.high
        )
        for spec, each in totals.items()
        if each.mean == each.mean
    ]
    return charts.quality_against_cost(points, unit), unit


def _dimensions(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in by_dimension(rows):
        found[item["dimension"]].append(item)
    return dict(found)


def _answers(task: str, rows: Sequence[Row]) -> dict[str, Any]:
    """What did not get the full score, the worst first, at most SHOWN of it; the page says how many there are."""
    poor = [row for row in rows if row.failed or (row.score is not None and row.score < 1.0)]
    if task.startswith("perplexity"):  # never 1, and nothing to read
        poor = [row for row in poor if row.failed]
    poor.sort(key=lambda row: (not row.failed, row.score if row.score is not None else -1.0, row.length))
    return {
        "task": task,
        "total": len(poor),
        "of": len(rows),
        "shown": [
            {"row": row, "excerpt": highlighted(row.excerpt, row.needles), "answer": cut(row.answer)}
            for row in poor[:SHOWN]
        ],
    }


def highlighted(text: str, needles: Sequence[str]) -> Markup:
    """The text with the needles marked; everything is escaped."""
    spans: list[tuple[int, int]] = []
    for needle in needles:
        at = text.find(needle) if needle else -1
        if at >= 0 and all(at >= end or at + len(needle) <= begin for begin, end in spans):
            spans.append((at, at + len(needle)))
    out, done = Markup(""), 0
    for begin, end in sorted(spans):
        out += escape(text[done:begin]) + Markup("<mark>{}</mark>").format(text[begin:end])
        done = end
    return out + escape(text[done:])


def cut(text: str) -> str:
    return text if len(text) <= ANSWER else f"{text[:ANSWER]}… ({len(text)} characters)"
