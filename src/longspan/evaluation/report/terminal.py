"""The report as a table in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from longspan.evaluation.report.summary import Cell, cell, pairs, summarise
from longspan.evaluation.rows import Row
from longspan.terminal import printable


def print_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """Scores by length, what they cost, and paired differences between specs."""
    console = console or Console()
    cells = summarise(rows)
    lengths = sorted({each.length for each in cells if each.length is not None})
    scores = Table(box=None, pad_edge=False, title="score (95 % interval)", title_justify="left")
    for name in ("spec", "task", "all"):
        scores.add_column(name, no_wrap=name != "spec")
    for length in lengths:
        scores.add_column(short(length), justify="right")
    scores.add_column("failed", justify="right")
    for whole in (each for each in cells if each.length is None):
        at = {each.length: each for each in cells if (each.spec, each.task) == (whole.spec, whole.task)}
        scores.add_row(
            Text(printable(whole.spec)),
            Text(printable(whole.task)),
            f"{percent(whole.mean)} [dim]{percent(whole.low)}–{percent(whole.high)}[/dim]",
            *(_at(at.get(length)) for length in lengths),
            f"{whole.failed} of {whole.n}" if whole.failed else "",
        )
    console.print(scores)
    if any(each.above_window for each in cells):
        console.print("[dim]* longer than the model's window[/dim]")
    console.print()
    console.print(_costs(rows))
    for pair in (pair for pair in pairs(rows) if pair.task is None):
        found = pair.difference
        console.print(
            Text(
                printable(
                    f"{pair.second} against {pair.first}: {100 * found.mean:+.1f} points "
                    f"({100 * found.low:+.1f} to {100 * found.high:+.1f}, p {found.p:.3f}, {found.n} samples)"
                )
            )
        )


def _costs(rows: Sequence[Row]) -> Table:
    """What each spec took, over all tasks."""
    table = Table(box=None, pad_edge=False)
    table.add_column("spec", min_width=16, overflow="fold")
    for name in ("s/sample", "read/s", "written/s", "tokens read", "written", "calls", "memory", "cache", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for spec in dict.fromkeys(row.spec for row in rows):
        total = cell(spec, "", None, [row for row in rows if row.spec == spec])
        table.add_row(
            Text(printable(spec)),
            f"{total.seconds / total.n:.2f}",
            speed(total.prefill_speed),
            speed(total.decode_speed),
            f"{total.input_tokens}",
            f"{total.output_tokens}",
            f"{total.calls}",
            size(total.peak_bytes),
            size(total.cache_bytes),
            f"{total.cost:.4f}" if total.cost is not None else "",
        )
    return table


def _at(each: Cell | None) -> str:
    return "" if each is None else percent(each.mean) + ("*" if each.above_window else "")


def percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.0f}"


def speed(tokens: float | None) -> str:
    return "" if tokens is None else f"{tokens:.0f}" if tokens >= 100 else f"{tokens:.1f}"


def size(count: int | None) -> str:
    return "" if not count else f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def short(length: int) -> str:
    """4096 as 4K, 1500 as 1500."""
    for unit, name in ((1 << 20, "M"), (1 << 10, "K")):
        if length >= unit and length % unit == 0:
            return f"{length // unit}{name}"
    return str(length)
