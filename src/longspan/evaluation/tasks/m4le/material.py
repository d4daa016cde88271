"""What M4LE's samples are built of: short texts that know something of themselves, from this machine or from a file.

M4LE converts datasets of short texts. Where none are at hand, three are made of what every Python brings along, with
labels that its authors wrote, not a model:

- `code`: functions of the standard library, without their docstrings. The module is the class, the first sentence of
  the docstring is the summary, the default value of a parameter is a question. Documents are whole modules.
- `docstrings`: the bodies of docstrings. Class and summary as above; a question is a sentence with a word left out.
- `reference`: paragraphs of the language reference. The paragraph before is known, questions are as for docstrings;
  they have no class, for topics overlap. Documents are whole topics.

They stand in for M4LE's 36 datasets, they are not their equal: models have seen these texts in training, the questions
are mechanical, all are English, and there is no translation. They are those of the running Python, so figures of two
versions of Python do not compare.
"""

from __future__ import annotations

import ast
import json
import re
import sysconfig
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from longspan.errors import UsageError

MODULES = (
    "asyncio difflib doctest email http importlib inspect ipaddress logging mailbox multiprocessing pathlib statistics "
    "subprocess tarfile threading turtle typing unittest urllib xml zipfile"
).split()
TEXT = (60, 300)  # characters of a short text: a prompt of 1K tokens holds several
SUMMARY = (4, 20)  # words
SENTENCE = re.compile(r"[A-Z][^.!?]{40,160}[.!?](?=\s|$)")


@dataclass(frozen=True, slots=True)
class Passage:
    """One text and what its dataset knows of it; what is not known is empty.

    `title` is its name, which nothing else has; `label` its class; `summary` what it says in short; `previous` the
    text that it continues; `evidence` the verbatim part of `text` that holds the answer to `question`; `translation`
    the text in `language`.
    """

    text: str
    title: str = ""
    label: str = ""
    summary: str = ""
    question: str = ""
    answers: tuple[str, ...] = ()
    evidence: str = ""
    previous: str = ""
    translation: str = ""
    language: str = ""

    def knows(self, needs: Sequence[str]) -> bool:
        return all(getattr(self, name) for name in needs)


@dataclass(frozen=True, slots=True)
class Pool:
    """A dataset: `passages` to join into a long text, and `documents` that are long themselves."""

    domain: str
    passages: list[Passage]
    documents: list[Passage]


@lru_cache(maxsize=1)
def local_pools() -> tuple[Pool, ...]:
    """The three datasets of this machine."""
    code: dict[str, Passage] = {}  # by name: it stands for one text
    docstrings: dict[str, Passage] = {}
    modules: list[Passage] = []
    for module, source in sources():
        tree = ast.parse(source)
        lines = source.splitlines(keepends=True)
        asked: list[dict[str, Any]] = []
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            text = without_docstring(node, lines)
            question = default_value(node, text)
            asked += [question] if question else []
            head, _, body = (ast.get_docstring(node) or "").partition("\n\n")
            known: dict[str, Any] = {"title": node.name, "label": module, "summary": first_sentence(head)}
            if node.name.startswith("_") or len(node.name) < 4 or not known["summary"]:
                continue
            if TEXT[0] <= len(text) <= TEXT[1] and node.name not in code:
                code[node.name] = Passage(text=text, **known, **question)
            text = opening(body)
            if len(text) >= TEXT[0] and node.name not in docstrings:
                docstrings[node.name] = Passage(text=text, **known, **cloze(text))
        head, _, _ = (ast.get_docstring(tree) or "").partition("\n\n")
        start = (tree.body[0].end_lineno or 0) if head else 0
        text = "".join(lines[start:]).strip()
        whole = Passage(text=text, label=module, summary=first_sentence(head))
        # documents come once for each question after a function whose name they define once
        once = [one for one in asked if text.count(f"{one['evidence'].partition('(')[0]}(") == 1]
        modules += [replace(whole, **one) for one in once] or [whole]
    reference: dict[str, Passage] = {}
    topics: list[Passage] = []
    for blocks in reference_topics():
        text = "\n\n".join(blocks)
        for previous, block in zip(["", *blocks], blocks, strict=False):
            if is_prose(block) and block not in reference:  # topics repeat parts of one another
                before = previous if is_prose(previous) else ""
                reference[block] = Passage(text=block, previous=before, **cloze(block))
                topics += [Passage(text=text, **cloze(block))] if cloze(block) else []
    return (
        Pool("code", list(code.values()), modules),
        Pool("docstrings", list(docstrings.values()), []),
        Pool("reference", list(reference.values()), topics),
    )


def sources() -> Iterator[tuple[str, str]]:
    """(module, source) of each file of `MODULES` that this Python has."""
    root = Path(sysconfig.get_path("stdlib"))
    for module in MODULES:
        files = sorted((root / module).rglob("*.py")) if (root / module).is_dir() else [root / f"{module}.py"]
        for file in files:
            if file.is_file() and not {"test", "tests"} & set(file.parts[len(root.parts) :]):
                yield module, file.read_text(encoding="utf-8")


def without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: Sequence[str]) -> str:
    """The source of a function, moved to the left margin, without its docstring."""
    kept = lines[node.lineno - 1 : node.end_lineno]
    if ast.get_docstring(node) is not None:
        doc = node.body[0]
        kept = [*kept[: doc.lineno - node.lineno], *kept[(doc.end_lineno or doc.lineno) - node.lineno + 1 :]]
    return textwrap.dedent("".join(kept)).strip()


def default_value(node: ast.FunctionDef | ast.AsyncFunctionDef, text: str) -> dict[str, Any]:
    """A question after the default value of a parameter, or nothing: values are numbers and short words."""
    arguments = [*node.args.posonlyargs, *node.args.args]
    for argument, default in zip(reversed(arguments), reversed(node.args.defaults), strict=False):
        value = default.value if isinstance(default, ast.Constant) else None
        line = next((line.strip() for line in text.splitlines() if f"def {node.name}(" in line), "")
        if type(value) in (int, str) and re.fullmatch(r"\w{1,20}", str(value)) and f"{argument.arg}={value!r}" in line:
            asks = f"What is the default value of the parameter {argument.arg} of the function {node.name}?"
            return {"question": asks, "answers": (str(value),), "evidence": line}
    return {}


def cloze(text: str) -> dict[str, Any]:
    """A sentence of `text` with its longest word left out, if the word stands in the text once; or nothing."""
    for sentence in SENTENCE.findall(text):
        for word in sorted(re.findall(r"\b[a-z]{6,}\b", sentence), key=len, reverse=True):
            if text.lower().count(word) == 1:
                gap = re.sub(rf"\b{word}\b", "____", sentence)
                return {
                    "question": f'Which word fills the blank in the sentence "{gap}"?',
                    "answers": (word,),
                    "evidence": sentence,
                }
    return {}


def first_sentence(text: str) -> str:
    """The first sentence on one line, if it reads like one, without its full stop; else nothing."""
    sentence = re.split(r"\.(?:\s|$)", " ".join(text.split()))[0].rstrip(": ")
    return sentence if SUMMARY[0] <= len(sentence.split()) <= SUMMARY[1] and sentence[0].isupper() else ""


def opening(text: str) -> str:
    """The first paragraphs, each on one line, as many as are short together."""
    kept = ""
    for block in text.split("\n\n"):
        longer = f"{kept}\n{' '.join(block.split())}".strip()
        if len(longer) > TEXT[1]:
            break
        kept = longer
    return kept


def reference_topics() -> Iterator[list[str]]:
    """Each topic's paragraphs without the headings: prose on one line each, examples and grammar as they stand."""
    from pydoc_data.topics import topics

    for text in topics.values():
        blocks = [block for block in text.split("\n\n") if block.strip() and not re.search(r"\n[*=\-~]{3,}$", block)]
        yield [" ".join(block.split()) if block.strip()[0].isupper() else block.strip("\n") for block in blocks]


def is_prose(block: str) -> bool:
    return TEXT[0] <= len(block) <= TEXT[1] and block[0].isupper() and "::=" not in block and block[-1] in ".:"


def read_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file, each with `file:line` for messages. Raises UsageError for what is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}.") from None
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{where} is no JSON: {error}.") from None
        if not isinstance(row, dict):
            raise UsageError(f'{where} is no object: write one a line, as {{"text": "...", "label": "..."}}.')
        rows.append((where, row))
    if not rows:
        raise UsageError(f"{path} has no lines.")
    return rows


def passage_of(where: str, row: dict[str, Any]) -> Passage:
    """A line of a dataset as a passage: the fields of `Passage` by their names, `answer` for one of `answers`."""
    known: dict[str, Any] = {}
    for name in [field.name for field in fields(Passage) if field.name != "answers"]:
        value = row.get(name, "")
        if not isinstance(value, str):
            raise UsageError(f'{where}: "{name}" must be a string, not {value!r}.')
        known[name] = value.strip()
    if not known["text"]:
        raise UsageError(f'{where} has no "text": each line needs one, and what is known of it ("label", "title" ...).')
    answers = row.get("answers", [row["answer"]] if "answer" in row else [])
    if not isinstance(answers, list) or not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise UsageError(f'{where}: "answers" must be a list of strings that are not empty, not {answers!r}.')
    if bool(known["question"]) != bool(answers):
        raise UsageError(f'{where}: a "question" needs its "answers", and they a question.')
    if known["evidence"] not in known["text"]:
        raise UsageError(f'{where}: the "evidence" is not a part of the "text".')
    return Passage(**known, answers=tuple(answer.strip() for answer in answers))
