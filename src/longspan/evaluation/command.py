"""What `longspan eval` and `longspan effective` do: run, then show and save what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from inspect_ai import eval as inspect_eval
from inspect_ai.log import list_eval_logs
from rich.console import Console
from rich.table import Table

from longspan.errors import LongspanError, UsageError
from longspan.evaluation import report, tasks
from longspan.evaluation.compare import compare, contender, folder_name, make_task, names_of, parse_arguments, rows_of
from longspan.evaluation.effective import RULER, Effective, Probe, effective_context
from longspan.evaluation.provider import local_llm
from longspan.llm.local import EMBEDDED
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


def effective(
    spec: str,
    task: str,
    out: Path,
    *,
    threshold: str,
    shortest: int,
    longest: int | None,
    confidence: float,
    seed: int,
    base_url: str | None,
    window: int | None,
    tell: Callable[[Probe], None],
) -> tuple[Effective, int | None]:
    """The effective context of a spec on one task, and the window that its model claims.

    Every draw of samples has a log of its own in `out`: what was drawn before an interruption is not drawn again.
    """
    (slug,) = names_of([task])
    each = contender(spec, base_url=base_url, window=window)
    llm = local_llm(each.model)
    claimed = llm.window if llm is not None else window
    if longest is None and claimed is None:
        raise UsageError("The window of an endpoint is not known here: say --longest (and --window).")
    tokenizer = llm.name.partition("+")[0] if llm is not None else EMBEDDED

    def scores_at(length: int, number: int) -> list[float]:
        arguments = {"lengths": length, "samples": 1, "seed": 1000 * seed + number, "tokenizer": tokenizer}
        folder = out / "logs" / folder_name(spec) / f"{slug}-{length}-{1000 * seed + number}"
        logs = [str(info.name) for info in list_eval_logs(str(folder), filter=lambda log: log.status == "success")]
        if not logs:
            (log,) = inspect_eval(
                make_task(slug, arguments),
                model=each.model,
                log_dir=str(folder),
                fail_on_error=False,
                display="none",
                max_connections=each.model.api.max_connections(),
                solver=each.solver,
            )
            if log.status != "success":
                raise LongspanError(f"The evaluation stopped: {log.error.message if log.error else log.status}.")
            logs = [log.location]
        return [row.score or 0.0 for row in rows_of(logs[0])]  # a crash is no answer

    return (
        effective_context(
            scores_at,
            shortest=shortest,
            longest=longest or claimed or shortest,
            threshold=limit_of(threshold),
            confidence=confidence,
            tell=tell,
        ),
        claimed,
    )


def limit_of(threshold: str) -> float | None:
    """`ruler` is RULER's 0.856, `relative` (None) a share of the score at the shortest length, else a number."""
    if threshold == "ruler":
        return RULER
    if threshold == "relative":
        return None
    try:
        return float(threshold)
    except ValueError:
        raise UsageError(f"{threshold!r} is no threshold: write ruler, relative, or a score such as 0.8.") from None
