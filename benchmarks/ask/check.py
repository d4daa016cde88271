"""Check a file of questions against the texts they are about.

    python benchmarks/ask/check.py benchmarks/ask/development.jsonl FOLDER

FOLDER is where the texts are, or are fetched to. Exit status 1 if anything is wrong. A question is sound if every
evidence snippet occurs in its text, every group of answers has an alternative that occurs in the evidence (of
counts: one that is a number), and its id is no other's. White space counts as one space, case does not count.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path

from texts import NAMES, fetch, plain

KINDS = ("fact", "two", "list", "count", "absent")
KEYS = {"id", "text", "kind", "question", "answers", "evidence"}
SNIPPET = range(30, 201)  # characters
WORDS = re.compile(
    "(zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
    "|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand)"
)


def normal(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().casefold()


def is_number(text: str) -> bool:
    return all(re.fullmatch(r"\d[\d.,]*", word) or WORDS.fullmatch(word) for word in re.split(r"[\s-]+", normal(text)))


def problems_of(entry: dict, text: str) -> list[str]:
    """What is wrong with one question; `text` is the normal form of what it is about."""
    kind, answers, evidence = entry["kind"], entry["answers"], entry["evidence"]
    found = []
    if kind not in KINDS:
        found.append(f"unknown kind {kind!r}")
    if not entry["question"].strip().endswith(("?", ".")):
        found.append("the question ends in neither ? nor .")
    for snippet in evidence:
        if normal(snippet) not in text:
            found.append(f"not in the text: {snippet!r}")
        if len(normal(snippet)) not in SNIPPET:
            found.append(f"{len(normal(snippet))} characters: {snippet!r}")
    if kind == "absent":
        if answers or evidence:
            found.append("absent, yet with answers or evidence")
        return found
    if not answers or not evidence:
        found.append("no answers or no evidence")
    if kind == "two" and len(evidence) < 2:
        found.append("needs two snippets of evidence")
    every = " … ".join(normal(snippet) for snippet in evidence)
    for group in answers:
        if not group or not all(normal(alternative) for alternative in group):
            found.append(f"an empty answer in {group}")
        elif kind == "count":
            if not any(is_number(alternative) for alternative in group):
                found.append(f"no number in {group}")
        elif not any(normal(alternative) in every for alternative in group):
            found.append(f"no evidence has any of {group}")
        question = f" {normal(entry['question'])} "
        if any(re.search(rf"(?<!\w){re.escape(normal(a))}(?!\w)", question) for a in group):
            found.append(f"the question gives the answer away: {group}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()

    lines = arguments.questions.read_text(encoding="utf-8").splitlines()
    problems: list[str] = []
    entries: list[dict] = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(f"line {number}: not JSON: {error}")
            continue
        if set(entry) != KEYS or entry["text"] not in NAMES:
            problems.append(f"line {number}: wants the keys {sorted(KEYS)} and a text of {NAMES}")
        else:
            entries.append(entry)
    problems += [f"{id_}: {n} times" for id_, n in Counter(entry["id"] for entry in entries).items() if n > 1]
    questions = Counter(normal(entry["question"]) for entry in entries)
    problems += [f"asked {n} times: {question}" for question, n in questions.items() if n > 1]

    texts = {}
    for name in sorted({entry["text"] for entry in entries}):
        files = fetch(name, arguments.folder)
        texts[name] = normal("\n\n".join(plain(path) for path in files))
    for entry in entries:
        problems += [f"{entry['id']}: {problem}" for problem in problems_of(entry, texts[entry["text"]])]

    counts = Counter((entry["text"], entry["kind"]) for entry in entries)
    print(f"{'':24}" + "".join(f"{kind:>8}" for kind in (*KINDS, "all")))
    for name in [*texts, "all"]:
        row = [sum(n for (t, k), n in counts.items() if name in (t, "all") and k == kind) for kind in KINDS]
        print(f"{name:24}" + "".join(f"{n:8}" for n in [*row, sum(row)]))
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
