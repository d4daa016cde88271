"""`longspan dataset`: training data of the workflows that are also trained (InftyThink, AgenticLU), as JSON lines.

A run that was stopped goes on: every line carries the number of the input's line that it was made from (`source`), and
inputs whose lines are there are not made again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from longspan.corpus import Corpus
from longspan.errors import LongspanError, UsageError
from longspan.llm import LLM
from longspan.workflows.agenticlu import Clarifications, dpo_row, marked, sft_row
from longspan.workflows.answer import Settings
from longspan.workflows.atoms import Atoms
from longspan.workflows.inftythink import training_rows

Progress = Callable[[str, int, int], None]


def inftythink(source: Path, out: Path, llm: LLM, *, eta: int, progress: Progress | None = None) -> tuple[int, int]:
    """Long solutions in the iterative form: (inputs, rows made now).

    A line of `source` has `question` and `solution`, or `messages` of a user and an assistant; the solution is
    `<think>…</think>…`. Raises UsageError for another line, with file and line.
    """
    lines = list(_lines(source))
    done = _done(out)
    made = 0
    for at, (number, line) in enumerate(lines):
        if progress:
            progress("rewriting solutions", at, len(lines))
        if number in done:
            continue
        question, solution = _solved(line, f"{source}:{number}")
        try:
            rows = asyncio.run(training_rows(question, solution, llm, eta=eta))
        except UsageError as error:
            raise UsageError(f"{source}:{number}: {error}") from None
        _append(out, [{**row, "source": number} for row in rows])
        made += len(rows)
    return len(lines), made


def agenticlu(
    corpus: Corpus,
    questions: Path,
    out: Path,
    llm: LLM,
    *,
    depth: int,
    width: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Trees of clarifications over a corpus: `out`/sft.jsonl and `out`/dpo.jsonl; (inputs, trees grown now).

    A line of `questions` has `question` and `answer`. Raises UsageError for another line, with file and line.
    """
    lines = list(_lines(questions))
    out.mkdir(parents=True, exist_ok=True)
    done = _done(out / "sft.jsonl")
    grown = 0
    atoms = Atoms.of(corpus, llm)
    for at, (number, line) in enumerate(lines):
        if progress:
            progress("growing trees", at, len(lines))
        if number in done:
            continue
        question, answer = line.get("question"), line.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str):
            raise UsageError(f"{questions}:{number} needs a question and an answer, both text.")
        tree = Clarifications(question, atoms, llm, Settings(), width=width, seed=seed, known=answer)
        root = asyncio.run(tree.grow(depth))
        text = marked(atoms, tree.parts)
        if pair := dpo_row(question, text, root):
            _append(out / "dpo.jsonl", [{**pair, "source": number}])
        _append(
            out / "sft.jsonl", [{**sft_row(question, text, root), "source": number}]
        )  # last: it marks the input done
        grown += 1
    return len(lines), grown


def _solved(line: dict[str, Any], where: str) -> tuple[str, str]:
    if isinstance(messages := line.get("messages"), list):
        said = [message.get("content") for message in messages if isinstance(message, dict)]
        line = {"question": said[0], "solution": said[-1]} if len(said) == 2 else {}
    question, solution = line.get("question"), line.get("solution")
    if not isinstance(question, str) or not isinstance(solution, str):
        raise UsageError(f"{where} needs question and solution, or messages of a user and an assistant.")
    return question, solution


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines with their line numbers, from 1."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LongspanError(f"Cannot read {path}: {error}.") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}:{number} is no JSON: {error}.") from None
        if not isinstance(value, dict):
            raise UsageError(f"{path}:{number} is no JSON object.")
        yield number, value


def _done(out: Path) -> set[int]:
    """The inputs that are in a file already; a last line that was cut off is removed."""
    if not out.exists():
        return set()
    whole = [line for line in out.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    out.write_text("".join(whole), encoding="utf-8")
    return {int(value["source"]) for _, value in _lines(out)}


def _append(out: Path, rows: list[dict[str, Any]]) -> None:
    """Lines of one input, written at once."""
    try:
        with out.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    except OSError as error:
        raise LongspanError(f"Cannot write {out}: {error.strerror or error}.") from error
