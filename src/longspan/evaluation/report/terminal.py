"""The report as tables in the terminal, and how its figures are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from longspan.evaluation.report.summary import Cell, Contrast, Summary, summarise
from longspan.evaluation.rows import Row
from longspan.evaluation.statistics import Difference, Estimate
from longspan.terminal import printable

ABOVE = "△"  # stands by lengths above the window


def print_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """Scores in hundredths with 95 % intervals: by task (or by length, where there is one task), then what each spec
    took, and the differences between specs."""
    console = console or Console()
    summary = summarise(rows)
    if len(summary.tasks) == 1 and len(summary.lengths) > 1:
        console.print(_by_length(summary, summary.tasks[0]))
    else:
        console.print(_by_task(summary))
    if any(cell.above_window for cell in summary.cells.values()):
        console.print(f"{ABOVE} longer than the model's window", style="dim", highlight=False)
    console.print()
    console.print(_resources(summary))
    overall = [one for one in summary.contrasts if one.task is None]
    if overall:
        console.print()
        console.print(_differences(overall))
    for note in summary.notes:
        console.print(Text(printable(f"note: {note}"), style="dim"))


def _table(title: str, *columns: str, left: int = 1, widest: int = 0) -> Table:
    """The first column, whose longest text has `widest` characters, is folded where the terminal is narrow."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", padding=(0, 1, 0, 0))
    table.add_column(Text(printable(columns[0])), overflow="fold", vertical="bottom", min_width=min(widest, 10))
    for at, column in enumerate(columns[1:], 1):
        table.add_column(
            Text(printable(column)), justify="left" if at < left else "right", no_wrap=True, vertical="bottom"
        )
    return table


def _widest(names: Iterable[str]) -> int:
    return max(map(len, names), default=0)


def _by_task(summary: Summary) -> Table:
    """A line for each spec and task; with several tasks, one for their mean."""
    table = _table(
        "score, of 100 (95 % interval)",
        "spec",
        "task",
        "score",
        "samples",
        "failed",
        left=2,
        widest=_widest(summary.specs),
    )
    for spec in summary.specs:
        tasks: list[str | None] = [task for task in summary.tasks if (spec, task, None) in summary.cells]
        for task in tasks + ([None] if len(tasks) > 1 else []):
            cell = summary.cells[spec, task, None]
            table.add_row(
                Text(printable(spec) if task is tasks[0] else ""),
                Text(printable(task)) if task is not None else Text("mean of tasks", style="italic"),
                _score(cell),
                _count(cell.score.n if cell.score else 0),
                _failed(cell),
                end_section=task is None or len(tasks) == 1,
            )
    return table


def _by_length(summary: Summary, task: str) -> Table:
    """One task: a line for each spec, a column for each length."""
    above = {cell.length for cell in summary.cells.values() if cell.above_window}
    columns = [short(length) + (ABOVE if length in above else "") for length in summary.lengths]
    table = _table(
        f"{task}: score, of 100 (95 % interval)",
        "spec",
        "all",
        *columns,
        "samples",
        "failed",
        widest=_widest(summary.specs),
    )
    for spec in summary.specs:
        whole = summary.cells[spec, task, None]
        table.add_row(
            Text(printable(spec)),
            _score(whole, "\n"),
            *(_score(summary.cells.get((spec, task, length)), "\n") for length in summary.lengths),
            _count(whole.score.n if whole.score else 0),
            _failed(whole),
        )
    return table


def _resources(summary: Summary) -> Table:
    """Columns of which nothing is known are left out."""
    cells = [summary.cells[spec, None, None] for spec in summary.specs]
    columns = [
        ("s/\nanswer", [seconds(cell.seconds) for cell in cells]),
        ("read\n/s", [rate(cell.prefill_rate) for cell in cells]),
        ("write\n/s", [rate(cell.decode_rate) for cell in cells]),
        ("tokens\nread", [tokens(cell.input_tokens) for cell in cells]),
        ("from\ncache", [tokens(cell.cached_tokens) if cell.cached_tokens else "–" for cell in cells]),
        ("tokens\nwritten", [tokens(cell.output_tokens) for cell in cells]),
        ("peak\nmemory", [size(cell.peak_bytes) for cell in cells]),
        ("cache", [size(cell.cache_bytes) for cell in cells]),
        ("cost", [money(cell.cost) for cell in cells]),
    ]
    shown = [(name, values) for name, values in columns if any(value != "–" for value in values)]
    table = _table("what it took", "spec", *(name for name, _ in shown), widest=_widest(summary.specs))
    for at, spec in enumerate(summary.specs):
        table.add_row(Text(printable(spec)), *(values[at] for _, values in shown))
    return table


def _differences(contrasts: Sequence[Contrast]) -> Table:
    names = (
        "difference on the same samples: points, or % of perplexity",
        "",
        "difference",
        "95 % interval",
        "p",
        "samples",
    )
    table = _table(*names, widest=10)
    for one in contrasts:
        found = one.difference
        table.add_row(
            Text(printable(f"{one.a} against {one.b}")),
            *apart(found),
            probability(found.p),
            _count(found.n),
        )
    return table


def _score(cell: Cell | None, between: str = " ") -> Text:
    if cell is None:
        return Text("")
    if cell.score is None:
        return Text("no answer", style="red")
    value, interval = told(cell.score)
    return Text(value, style="bold").append(f"{between}{interval}", style="not bold dim")


def _failed(cell: Cell) -> Text:
    return Text(f"{cell.failed} of {cell.rows}", style="red") if cell.failed else Text("0", style="dim")


def _count(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")


def percent(share: float | None) -> str:
    """A score in hundredths; only 1 is 100 and only 0 is 0."""
    if share is None or math.isnan(share):
        return "–"
    text = f"{100 * share:.0f}"
    return "<1" if text == "0" and share > 0 else ">99" if text == "100" and share < 1 else text


def with_interval(score: Estimate) -> str:
    """71 (64–78)."""
    value, interval = told(score)
    return f"{value} ({interval})"


def told(score: Estimate) -> tuple[str, str]:
    """A score and its interval: hundredths, or a perplexity."""
    if not score.perplexity:
        return percent(score.value), f"{percent(score.low)}–{percent(score.high)}"
    value, low, high = (1 / max(share, 1e-9) for share in (score.value, score.high, score.low))
    return f"{value:.1f}", f"{low:.1f}–{high:.1f}" if high < 1e6 else f"{low:.1f}–∞"


def apart(difference: Difference) -> tuple[str, str]:
    """A difference and its interval: points, or how much higher a perplexity is."""
    if not difference.perplexity:
        return points(difference.value), f"{points(difference.low)} to {points(difference.high)}"
    value, low, high = (points(x, 2) if x < 100 else "+∞" for x in (difference.value, difference.low, difference.high))
    return f"{value} %", f"{low} to {high} %"


def points(difference: float, digits: int = 1) -> str:
    """A difference of scores in hundredths, with its sign."""
    if math.isnan(difference):
        return "–"
    text = f"{100 * difference:+.{digits}f}".replace("-", "−")
    return text[1:] if float(text[1:]) == 0 else text


def probability(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def short(length: int) -> str:
    """4096 as 4K, 1500 as 1500."""
    for unit, name in ((1 << 20, "M"), (1 << 10, "K")):
        if length >= unit and length % unit == 0:
            return f"{length // unit}{name}"
    return str(length)


def tokens(count: int) -> str:
    """A number of tokens to three digits: 950, 12.3k, 4.56M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            share = count / unit
            return f"{share:.{2 if share < 10 else 1 if share < 100 else 0}f}{name}"
    return str(count)


def seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def rate(value: float | None) -> str:
    """Tokens per second."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f") if value >= 100 else f"{value:.1f}"


def size(count: int | None) -> str:
    if not count:
        return "–"
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            share = count / unit
            return f"{share:.{1 if share < 10 else 0}f} {name}"
    return f"{count} B"


def money(cost: float | None) -> str:
    return "–" if cost is None else f"{cost:.2f}" if cost >= 1 else f"{cost:.4f}" if cost else "0"
