"""`longspan eval`: the same samples to every spec, by inspect_ai, with its logs, retries and resume.

A spec is `[WORKFLOW@]MODEL[+METHOD...]`. Every spec has a folder of logs; an interrupted run that is started again
with the same folder goes on with what is missing.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspect_ai import Task, eval_set
from inspect_ai.agent import Agent
from inspect_ai.log import EvalLog, EvalSample, read_eval_log, read_eval_log_samples
from inspect_ai.model import Model, get_model

from longspan.asking import Spec
from longspan.errors import UsageError
from longspan.evaluation import tasks
from longspan.evaluation.agent import workflow
from longspan.evaluation.provider import forget_peak, local_llm, shared_llm
from longspan.evaluation.rows import Row
from longspan.llm.local import EMBEDDED
from longspan.registry import find, parts

EXCERPT = 240  # characters on each side of the needle
SKIPPED_FIELDS = {"events", "messages", "store", "attachments", "events_data"}  # large, and not in a row


@dataclass(frozen=True, slots=True)
class Contender:
    """What answers: `spec` as written, with its inspect model and, for a workflow, its agent."""

    spec: str
    model: Model
    workflow: str | None
    window: int | None  # tokens; None where it is not known

    @property
    def solver(self) -> Agent | None:
        """The workflow as an agent; None leaves the sample to the task's own way, the model alone."""
        return workflow(self.workflow, self.window) if self.workflow else None


def contender(spec: str, *, base_url: str | None = None, window: int | None = None, workers: str = "") -> Contender:
    """The contender named by a spec; nothing is loaded yet, but names are checked."""
    parsed = Spec.parse(spec)
    if parsed.workflow is not None:
        find("workflow", parsed.workflow)
    if parsed.model.startswith("openai:"):
        key = None if os.environ.get("OPENAI_API_KEY") or not base_url else "none"
        name = f"openai/{parsed.model.removeprefix('openai:')}"
        # The protocol that every compatible server speaks, and `ask`; few have the Responses API.
        model = get_model(name, base_url=base_url, api_key=key, responses_api=False)
        return Contender(spec, model, parsed.workflow, window)
    model = get_model(f"longspan/{parsed.model}", memoize=False, workers=workers)
    return Contender(spec, model, parsed.workflow, None)


def names_of(wanted: Sequence[str]) -> list[str]:
    """The slugs of tasks, groups spelled out, each once. Raises UsageError for a name that is neither."""
    found: list[str] = []
    for name in wanted:
        for slug in tasks.GROUPS.get(name, [name]):
            find("task", slug)
            if slug not in found:
                found.append(slug)
    if not found:
        known = ", ".join([*tasks.GROUPS, *(part.slug for part in parts("task"))])
        raise UsageError(f"Name at least one task: {known}.")
    return found


def make_task(slug: str, arguments: Mapping[str, Any]) -> Task:
    """The task with those of the arguments that it takes."""
    make = find("task", slug)
    takes = inspect.signature(make).parameters
    made: Task = make(**{name: value for name, value in arguments.items() if name in takes})
    return made


def check_arguments(slugs: Sequence[str], arguments: Mapping[str, Any]) -> None:
    """Raises UsageError for an argument that no task takes: a misspelling would change nothing, silently."""
    taken = {name for slug in slugs for name in inspect.signature(find("task", slug)).parameters}
    for name in arguments.keys() - taken:
        raise UsageError(f"None of these tasks takes {name!r}; they take {', '.join(sorted(taken))}.")


def compare(
    wanted: Sequence[str],
    specs: Sequence[str],
    folder: Path,
    *,
    arguments: Mapping[str, Any],
    base_url: str | None = None,
    window: int | None = None,
    workers: str = "",
    limit: int | None = None,
    time_limit: int | None = None,
    display: str = "rich",
) -> list[Row]:
    """Give every sample of the tasks to every spec, and return one row for each answer.

    Lengths are counted in the tokens of the first spec's model, so that all specs get the same texts. `folder` receives
    the logs. `limit` bounds the samples of a task, `time_limit` the seconds of a sample: one that takes longer has
    failed, like one whose model crashed; both stay in the rows.
    """
    slugs = names_of(wanted)
    check_arguments(slugs, arguments)
    for spec in specs:
        if Spec.parse(spec).workflow is not None:
            find("workflow", Spec.parse(spec).workflow or "")
    first = Spec.parse(specs[0]).model
    tokenizer = EMBEDDED if first.startswith("openai:") else first.partition("+")[0]
    rows: list[Row] = []
    for spec in specs:
        shared_llm.cache_clear()
        each = contender(spec, base_url=base_url, window=window, workers=workers)
        logs = folder / "logs" / folder_name(spec)
        logs.mkdir(parents=True, exist_ok=True)
        local = local_llm(each.model)
        made = [make_task(slug, {"tokenizer": tokenizer, **arguments}) for slug in slugs]
        forget_peak()
        _, logs_made = eval_set(
            made,
            log_dir=str(logs),
            model=each.model,
            solver=each.solver,
            metadata={"spec": spec},
            fail_on_error=False,
            retry_attempts=0,
            retry_immediate=False,
            max_connections=each.model.api.max_connections(),
            log_buffer=1,
            log_dir_allow_dirty=True,
            limit=limit,
            time_limit=time_limit,
            display=display,  # type: ignore[arg-type]  # one of inspect's own
            max_tasks=1,
        )
        size = each.window if local is None else local.window
        for log in logs_made:
            rows += rows_of(log.location, size)
    return rows


def folder_name(spec: str) -> str:
    """A spec as the name of a folder: readable, and no path."""
    return re.sub(r"[^\w.=+@-]+", "_", spec).strip(".") or "_"


def rows_of(location: str, window: int | None = None) -> Iterator[Row]:
    """One row for each sample of a log of inspect's; `window` is the model's, in tokens."""
    header = read_eval_log(location, header_only=True)
    for sample in read_eval_log_samples(location, all_samples_required=False, exclude_fields=SKIPPED_FIELDS):
        yield row_of(sample, header, window)


def row_of(sample: EvalSample, log: EvalLog, window: int | None) -> Row:
    """What a report needs of one sample."""
    about = sample.metadata
    told = sample.output.metadata or {}
    usage = list(sample.model_usage.values())
    score = next(iter((sample.scores or {}).values()), None)
    failed = sample.error is not None or sample.limit is not None or score is None
    error = sample.error.message if sample.error else f"{sample.limit.type} limit reached" if sample.limit else ""
    prompt = sample.input if isinstance(sample.input, str) else "\n".join(message.text for message in sample.input)
    cached = sum(each.input_tokens_cache_read or 0 for each in usage)
    costs = [each.total_cost for each in usage if each.total_cost is not None]
    spec = (log.eval.metadata or {}).get("spec") or log.eval.model
    needles = [str(needle) for needle in about.get("needles", [])]
    tokens = int(about.get("tokens", 0))
    return Row(
        spec=str(spec),
        task=log.eval.task.rpartition("/")[2],
        sample=str(sample.id),
        epoch=sample.epoch,
        length=int(about.get("length", 0)),
        tokens=tokens,
        score=None if failed or score is None else float(score.as_float()),
        failed=failed,
        error=error,
        depth=about.get("depth"),
        above_window=window is not None and tokens > window,
        target=[sample.target] if isinstance(sample.target, str) else list(sample.target),
        question=str(about.get("question", "")),
        answer=sample.output.completion,
        needles=needles,
        excerpt=excerpt(prompt, needles),
        dimensions=dict(about.get("dimensions", {})),
        seconds=float(told.get("seconds") or sample.working_time or 0.0),
        prefill_seconds=told.get("prefill_seconds"),
        decode_seconds=told.get("decode_seconds"),
        calls=int(told.get("calls", 1)),
        input_tokens=int(told.get("input_tokens", sum(each.input_tokens for each in usage) + cached)),
        cached_tokens=cached,
        output_tokens=int(told.get("output_tokens", sum(each.output_tokens for each in usage))),
        cache_bytes=told.get("cache_bytes"),
        peak_bytes=told.get("peak_bytes"),
        cost=sum(costs) if costs else None,
        log=Path(log.location).name,
    )


def excerpt(prompt: str, needles: Sequence[str]) -> str:
    """The prompt around its first needle, or its end where it has none."""
    at = prompt.find(needles[0]) if needles else -1
    if at < 0:
        return prompt[-2 * EXCERPT :]
    begin, end = max(0, at - EXCERPT), min(len(prompt), at + len(needles[0]) + EXCERPT)
    return f"{'…' if begin else ''}{prompt[begin:end]}{'…' if end < len(prompt) else ''}"


def parse_arguments(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs; values are numbers, true, false, null where they look like it, else text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UsageError(f"{pair!r} is no argument of a task: write name=value, as in samples=5.")
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            found[name.strip()] = value
    return found
