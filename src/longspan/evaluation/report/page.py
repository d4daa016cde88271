"""The report as one page: no connections, no script needed to read it, light and dark, phone and desktop."""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from longspan import __version__
from longspan.errors import LongspanError
from longspan.evaluation.report import charts, terminal
from longspan.evaluation.report.summary import Cell, Contrast, Group, Summary, is_perplexity, spending, summarise
from longspan.evaluation.rows import Row
from longspan.terminal import printable

SHOWN = 200  # answers of a task that are there to read
ROOM = 3_000_000  # bytes that all of them may take
FRAME = 700  # bytes of a case beside its texts
LONGEST = 1_200  # characters of an answer, question or error that are shown
AROUND = 300  # characters shown on either side of a needle
MAPS = 60  # heat maps


@dataclass(frozen=True, slots=True)
class Case:
    """An answer to read: `kind` is failed, wrong (score 0) or partly (below 1)."""

    row: Row
    kind: str
    question: str
    answer: str
    expected: Sequence[str]
    excerpt: Markup
    error: str

    @property
    def bytes(self) -> int:
        texts = (self.question, self.answer, self.excerpt, self.error, *self.expected)
        return FRAME + sum(len(str(escape(text)).encode()) for text in texts)


@dataclass(frozen=True, slots=True)
class Cases:
    """The answers of a task to read: `shown` of `failed + wrong` that there are."""

    task: str
    shown: Sequence[Case]
    failed: int
    wrong: int


def write_html(rows: Sequence[Row], file: Path, title: str) -> None:
    """Write the page; it appears whole or not at all. At most `SHOWN` answers of a task are there to read, and the page
    says of how many."""
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(render(rows, title), encoding="utf-8", errors="replace")
        part.replace(file)
    except OSError as error:
        raise LongspanError(f"Cannot write the report to {file}: {error.strerror or error}.") from error


def render(rows: Sequence[Row], title: str) -> str:
    """The page as text."""
    summary = summarise(rows)
    specs = list(enumerate(summary.specs))
    unit, costs = spending(summary)
    maps = [(task, spec, spots) for (task, spec), spots in summary.heat.items()]
    return _template().render(
        title=printable(title),
        date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        summary=summary,
        numbers={spec: number for number, spec in specs},
        totals=[summary.cells[spec, None, None] for _, spec in specs],
        rows=len(rows),
        samples=len({(row.task, row.sample) for row in rows}),
        failed=sum(cell.failed for cell in _totals(summary)),
        above=any(cell.above_window for cell in _totals(summary)),
        apart=[task for task in summary.tasks if is_perplexity(task)],
        best=_best(summary),
        over_lengths=_lines(summary, None, 280) if len(summary.lengths) > 1 else None,
        against_cost=_against_cost(summary, costs, unit),
        unit=unit,
        multiples=[(task, _lines(summary, task, 210)) for task in summary.tasks],
        maps=[
            (
                task,
                [
                    (spec, charts.heat_map(spots, printable(f"{task}, {spec}: score by length and depth")))
                    for spec, spots in of
                ],
            )
            for task, of in _by_task(maps[:MAPS])
        ],
        maps_left_out=max(len(maps) - MAPS, 0),
        contrasts=_contrasts(summary),
        comparisons=sum(one.task is not None or len(summary.tasks) > 1 for one in summary.contrasts),
        span=_span(summary.contrasts),
        dimensions=_dimensions(summary.groups),
        cases=_cases(rows, summary.tasks),
        script=SCRIPT,
        policy="default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-"
        + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
        + "'; base-uri 'none'; form-action 'none'",
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("longspan.evaluation", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for way in ("told", "percent", "short", "seconds", "rate", "tokens", "size", "money", "apart", "probability"):
        environment.filters[way] = getattr(terminal, way)
    environment.filters.update(printable=printable, name=name, count=lambda n: f"{n:,}".replace(",", "\u202f"))
    environment.globals.update(charts=charts, with_interval=terminal.with_interval)
    return environment.get_template("page.html.j2")


def name(spec: str) -> Markup:
    """A spec, which may be broken at its joints."""
    return Markup("<wbr>").join(re.split(r"(?<=.)(?=\+)|(?<=[@/])", printable(spec)))


def _totals(summary: Summary) -> list[Cell]:
    return [summary.cells[spec, None, None] for spec in summary.specs]


def _best(summary: Summary) -> dict[str | None, set[str]]:
    """The specs with the highest mean of each task (None: of all), where there is anything to compare."""
    best: dict[str | None, set[str]] = {}
    for task in [None, *summary.tasks]:
        values = {
            spec: cell.score.value
            for spec in summary.specs
            if (cell := summary.cells.get((spec, task, None))) is not None and cell.score is not None
        }
        highest = max(values.values(), default=0.0)
        found = {spec for spec, value in values.items() if value >= highest - 1e-9}
        best[task] = found if len(found) < len(values) else set()
    return best


def _lines(summary: Summary, task: str | None, height: int) -> Markup:
    series = []
    for number, spec in enumerate(summary.specs):
        points = []
        for length in summary.lengths:
            cell = summary.cells.get((spec, task, length))
            if cell is None or cell.score is None:
                continue
            note = f"{printable(spec)}: {terminal.with_interval(cell.score)} at {terminal.short(length)} tokens, "
            note += f"{cell.score.n} sample{'s' * (cell.score.n != 1)}"
            note += f", {cell.failed} of {cell.rows} failed" if cell.failed else ""
            note += ", above the window" if cell.above_window else ""
            points.append(charts.Point(length, cell.score, cell.above_window, note))
        if points:
            series.append(charts.Series(spec, number, points))
    return charts.lines(series, f"{printable(task or 'all tasks')}: score against length in tokens", height=height)


def _against_cost(summary: Summary, costs: dict[str, float], unit: str) -> Markup:
    priced = []
    for number, spec in enumerate(summary.specs):
        score = summary.cells[spec, None, None].score
        if score is not None:
            priced.append(charts.Priced(spec, number, costs[spec], score))
    return charts.quality_against_cost(priced, unit, height=280) if len(priced) > 1 else Markup("")


def _by_task(maps: Iterable[tuple[str, str, Any]]) -> list[tuple[str, list[tuple[str, Any]]]]:
    found: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    for task, spec, spots in maps:
        found[task].append((spec, spots))
    return list(found.items())


def _contrasts(summary: Summary) -> list[tuple[Contrast, list[Contrast]]]:
    """For each pair of specs the difference over all tasks, and those of the tasks where there are several."""
    of: dict[tuple[str, str], list[Contrast]] = defaultdict(list)
    for one in summary.contrasts:
        if one.task is not None:
            of[one.a, one.b].append(one)
    several = len(summary.tasks) > 1
    return [(one, of[one.a, one.b] if several else []) for one in summary.contrasts if one.task is None]


def _span(contrasts: Sequence[Contrast]) -> float:
    """How far to either side of 0 the scale of differences must go."""
    ends = (min(max(abs(one.difference.low), abs(one.difference.high)), 1.0) for one in contrasts)
    widest = max(ends, default=1.0)
    return next(span for span in (0.1, 0.25, 0.5, 0.75, 1.0) if widest <= span + 1e-9)


def _dimensions(groups: Sequence[Group]) -> list[tuple[str, str, list[tuple[str, dict[str, Group]]]]]:
    """(task, dimension, [(value, {spec: group})])."""
    tables: dict[tuple[str, str], dict[str, dict[str, Group]]] = defaultdict(lambda: defaultdict(dict))
    for group in groups:
        tables[group.task, group.dimension][group.value][group.spec] = group
    return [(task, name, sorted(values.items(), key=_natural)) for (task, name), values in tables.items()]


def _natural(item: tuple[str, Any]) -> tuple[bool, float, str]:
    """Numbers by size, before words by letter."""
    try:
        return False, float(item[0]), ""
    except ValueError:
        return True, 0.0, item[0]


def _cases(rows: Sequence[Row], tasks: Sequence[str]) -> list[Cases]:
    """What failed or is not wholly right, task by task. Where that is too much, every spec, length and kind gets its
    turn, the worst first; what is shown stands by length, sample and spec, so that answers to one sample are together.
    Samples without a target (a text's perplexity) have no wrong answers."""
    open_: dict[str, dict[tuple[str, int, str], list[Row]]] = {task: defaultdict(list) for task in tasks}
    for row in rows:
        kind = _kind(row)
        if kind:
            open_[row.task][row.spec, row.length, kind].append(row)
    found: list[Cases] = []
    for at, (task, queues) in enumerate(open_.items()):
        left = ROOM - sum(case.bytes for cases in found for case in cases.shown)
        room = left // (len(tasks) - at)  # what one task does not need goes to those after it
        shown: list[Case] = []
        turns = [sorted(queue, key=lambda row: row.score or 0.0) for queue in queues.values()]
        for row in (
            queue[turn] for turn in range(max(map(len, turns), default=0)) for queue in turns if turn < len(queue)
        ):
            case = _case(row)
            room -= case.bytes
            if room < 0 or len(shown) == SHOWN:
                break
            shown.append(case)
        shown.sort(key=lambda case: (case.row.length, case.row.depth or 0.0, case.row.sample))
        failed = sum(len(queue) for (_, _, kind), queue in queues.items() if kind == "failed")
        found.append(Cases(task, shown, failed, sum(map(len, queues.values())) - failed))
    return found


def _kind(row: Row) -> str:
    if row.failed or row.score is None:
        return "failed"
    if row.score >= 1 or not any(row.target):
        return ""
    return "partly" if row.score > 0 else "wrong"


def _case(row: Row) -> Case:
    return Case(
        row,
        _kind(row),
        shortened(row.question),
        shortened(row.answer),
        [shortened(target) for target in row.target if target],
        highlighted(row.excerpt, row.needles),
        shortened(row.error),
    )


def shortened(text: str) -> str:
    """What is shown of a long text, and how much is not."""
    if len(text) <= LONGEST:
        return printable(text)
    return f"{printable(text[:LONGEST])} … and {len(text) - LONGEST:,} more characters".replace(",", "\u202f")


def highlighted(excerpt: str, needles: Sequence[str]) -> Markup:
    """The part of the prompt around the needles that it has, each in a `<mark>`."""
    spans = sorted(
        (found.start(), found.end())
        for needle in dict.fromkeys(needles)
        if needle.strip()
        for found in re.finditer(re.escape(needle), excerpt)
    )
    if spans:
        begin = max(spans[0][0] - AROUND, 0)
        end = min(max(end for _, end in spans) + AROUND, begin + 2 * LONGEST, len(excerpt))
    else:
        begin, end = 0, min(len(excerpt), LONGEST)
    parts = [Markup("…") if begin else Markup("")]
    at = begin
    for low, high in spans:
        low, high = max(low, at), min(high, end)
        if low < high:
            parts.append(Markup("{}<mark>{}</mark>").format(printable(excerpt[at:low]), printable(excerpt[low:high])))
            at = high
    parts += [escape(printable(excerpt[at:end])), Markup("…") if end < len(excerpt) else Markup("")]
    return Markup("").join(parts)


# Filters of the answers; without script all answers are there and the form stays hidden.
SCRIPT = """
const form = document.querySelector("#filter");
if (form) {
  const cases = [...document.querySelectorAll(".case")], told = form.querySelector("output");
  const show = () => {
    const {spec, task, kind} = form.elements;
    let shown = 0;
    for (const one of cases) {
      const fits = (!spec.value || one.dataset.spec === spec.value) && (!task.value || one.dataset.task === task.value)
        && (!kind.value || one.dataset.kind === kind.value);
      one.hidden = !fits;
      shown += fits;
    }
    const chosen = spec.value || task.value || kind.value;
    for (const group of document.querySelectorAll(".cases")) {
      group.hidden = !group.querySelector(".case:not([hidden])");
      if (chosen) group.open = !group.hidden;
    }
    told.textContent = shown === 1 ? "1 answer" : shown + " answers";
  };
  form.hidden = false;
  form.addEventListener("input", show);
  show();
}
"""
