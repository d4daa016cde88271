"""What `longspan eval` does: run, then show and save what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from longspan.errors import LongspanError
from longspan.evaluation import report, tasks
from longspan.evaluation.compare import compare, names_of, parse_arguments
from longspan.registry import parts


def describe() -> None:
    """List the tasks and the groups of tasks."""
    table = Table("task", "what it asks", box=None, pad_edge=False)
    for part in parts("task"):
        table.add_row(part.slug, part.summary)
    for name, members in tasks.GROUPS.items():
        table.add_row(name, f"a group: {', '.join(members)}")
    Console().print(table)


def evaluate(
    wanted: Sequence[str],
    specs: Sequence[str],
    out: Path,
    *,
    named: dict[str, Any],
    pairs: Sequence[str],
    **options: Any,
) -> None:
    """Run the tasks on every spec; print the table, and write samples.parquet, report.json and report.html."""
    names_of(wanted)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LongspanError(f"Cannot write to {out}: {error.strerror or error}.") from error
    rows = compare(wanted, specs, out, arguments={**parse_arguments(pairs), **named}, **options)
    if not rows:
        raise LongspanError(f"Nothing was measured: the logs in {out / 'logs'} say why.")
    report.save(rows, out)
    report.write_html(rows, out / "report.html", f"{', '.join(wanted)}: {', '.join(specs)}")
    report.print_table(rows)
    Console(stderr=True).print(f"report: {out / 'report.html'}", highlight=False)
