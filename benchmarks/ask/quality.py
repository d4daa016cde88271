"""Ask every question of a file and judge the answers: the table of the README, docs/results/ask.json.

    python benchmarks/ask/quality.py benchmarks/ask/test.jsonl FOLDER --out docs/results/ask.json

FOLDER is where the texts are, or are fetched to. Nothing is judged by a model:

- *cited*: one of the first three citations stands in a passage that holds the evidence (`quoted`: the quote itself
  has it);
- *right* (facts): not refused, the answer has an alternative of every group of expected answers as whole words, and a
  quote that it refers to touches the evidence (`stated`: the same without the last condition);
- *complete* (lists): the share of the expected items that the answer has;
- *refused* (absent answers): longspan said that the text does not say.

Intervals are Wilson's, 95 %. An interrupted run goes on where it was (answers are kept in build/).
"""

from __future__ import annotations

import argparse
import bisect
import datetime
import hashlib
import json
import math
import platform
import re
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from check import normal
from texts import fetch

import longspan
from longspan.asking import Spec
from longspan.corpus import Corpus
from longspan.llm import open_llm
from longspan.workflows import Settings

NEAR = 256  # tokens of a passage, as the index cuts them


class Place:
    """Where words stand in a corpus, whatever the mark-up, line breaks and case between them."""

    def __init__(self, corpus: Corpus) -> None:
        self.documents = []
        for document in corpus.documents():
            kept = [(char, at) for at, char in enumerate(document.text) if char.isalnum()]
            self.documents.append((document, "".join(c.casefold()[:1] for c, _ in kept), [at for _, at in kept]))

    def find(self, snippet: str) -> list[tuple[str, int, int]]:
        """(document name, start, end) of every occurrence."""
        wanted = "".join(char.casefold()[:1] for char in snippet if char.isalnum())
        found = []
        for document, letters, offsets in self.documents:
            at = letters.find(wanted)
            while at >= 0:
                found.append((document.name, offsets[at], offsets[at + len(wanted) - 1] + 1))
                at = letters.find(wanted, at + 1)
        return found


def has(alternative: str, text: str) -> bool:
    """Whether normalised `text` has the alternative as whole words."""
    wanted = normal(alternative)
    before = r"(?<!\w)" if wanted[0].isalnum() else ""
    after = r"(?!\w)" if wanted[-1].isalnum() else ""
    return re.search(before + re.escape(wanted) + after, text) is not None


def touches(citation: dict, places: list[tuple[str, int, int]]) -> bool:
    """Whether the quote has a good part of the evidence: half of it, or 40 characters."""
    for name, start, end in places:
        shared = min(end, citation["end"]) - max(start, citation["start"])
        if name == citation["document"] and shared >= min(40, (end - start) / 2):
            return True
    return False


def judge(entry: dict, answer: dict, places: list[list[tuple[str, int, int]]], passages: Passages) -> dict:
    """The verdict on one answer; `places` are the evidence's, one list a snippet."""
    text = normal(answer["answer"])
    kind, citations = entry["kind"], answer["citations"]
    verdict: dict = {"refused": answer["refused"]}
    if kind == "absent":
        return verdict
    groups = [any(has(alternative, text) for alternative in group) for group in entry["answers"]]
    verdict["stated"] = all(groups) and not answer["refused"]
    verdict["right"] = verdict["stated"] and any(touches(citation, found) for citation in citations for found in places)
    verdict["complete"] = 0.0 if answer["refused"] else sum(groups) / len(groups)
    verdict["quoted"] = any(touches(citation, found) for citation in citations[:3] for found in places)
    whole = [passages.around(citation) for citation in citations[:3]]
    verdict["cited"] = any(touches(passage, found) for passage in whole for found in places)
    return verdict


class Passages:
    """The passage in which a citation stands."""

    def __init__(self, corpus: Corpus, count_tokens) -> None:
        from longspan.corpus import passages

        self.starts: dict[str, list[int]] = {}
        self.ends: dict[str, list[int]] = {}
        for document in corpus.documents():
            found = list(passages(document, count_tokens, NEAR))
            self.starts[document.name] = [passage.start for passage in found]
            self.ends[document.name] = [passage.end for passage in found]

    def around(self, citation: dict) -> dict:
        starts, ends = self.starts[citation["document"]], self.ends[citation["document"]]
        at = max(0, bisect.bisect_right(starts, citation["start"]) - 1)
        return {**citation, "start": starts[at], "end": max(ends[at], citation["end"])}


def wilson(successes: float, trials: int) -> tuple[float, float]:
    z = 1.959964
    share = successes / trials
    middle = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return (middle - half) / (1 + z * z / trials), (middle + half) / (1 + z * z / trials)


MEASURES = [
    ("the right passage among the first three citations", "cited", ("fact", "two")),
    ("evidence in the first three quotes", "quoted", ("fact", "two")),
    ("facts stated once: right", "right", ("fact",)),
    ("facts in two places: right", "right", ("two",)),
    ("absent answers refused", "refused", ("absent",)),
    ("answerable questions refused", "refused", ("fact", "two")),
    ("lists: share of the items", "complete", ("list",)),
    ("counts: right", "stated", ("count",)),
]


def table(rows: list[dict]) -> list[dict]:
    out = []
    for title, field, kinds in MEASURES:
        values = [float(row["verdict"][field]) for row in rows if row["kind"] in kinds]
        if values:
            low, high = wilson(sum(values), len(values))
            out.append(
                {
                    "measure": title,
                    "share": round(sum(values) / len(values), 3),
                    "interval": [round(low, 3), round(high, 3)],
                    "questions": len(values),
                }
            )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--base-url")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--anew", action="store_true", help="ask again what was answered before")
    arguments = parser.parse_args()

    entries = [json.loads(line) for line in arguments.questions.read_text(encoding="utf-8").splitlines()]
    source = b"".join(path.read_bytes() for path in sorted(Path(longspan.__file__).parent.rglob("*.py")))
    version = hashlib.sha256(source).hexdigest()[:12]
    kept = Path("build") / f"quality-{arguments.questions.stem}-{version}-{arguments.model.replace('/', '_')}.jsonl"
    kept.parent.mkdir(exist_ok=True)
    if arguments.anew:
        kept.unlink(missing_ok=True)
    answers = {}
    if kept.exists():
        answers = {row["id"]: row for row in map(json.loads, kept.read_text(encoding="utf-8").splitlines())}
    spec = Spec.parse(arguments.model)
    llm = open_llm(spec.model, base_url=arguments.base_url)
    settings = Settings()
    by_text = defaultdict(list)
    for entry in entries:
        by_text[entry["text"]].append(entry)
    rows = []
    for name, questions in by_text.items():
        corpus = Corpus.open([str(path) for path in fetch(name, arguments.folder)])
        place, passages = Place(corpus), Passages(corpus, llm.count_batch)
        for entry in questions:
            if entry["id"] not in answers:
                begin = time.perf_counter()
                answer = longspan.ask(corpus, entry["question"], model=llm, workflow=spec.workflow, settings=settings)
                seconds = time.perf_counter() - begin
                answers[entry["id"]] = {"id": entry["id"], "seconds": round(seconds, 2), "answer": answer.to_dict()}
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(answers[entry["id"]]) + "\n")
            got = answers[entry["id"]]
            places = [place.find(snippet) for snippet in entry["evidence"]]
            for snippet, found in zip(entry["evidence"], places, strict=True):
                if not found:
                    print(f"{entry['id']}: the evidence is not in the text as longspan reads it: {snippet!r}")
            verdict = judge(entry, got["answer"], places, passages)
            rows.append(
                {
                    "id": entry["id"],
                    "kind": entry["kind"],
                    "question": entry["question"],
                    "answer": got["answer"]["answer"],
                    "confidence": max((c["score"] for c in got["answer"]["citations"]), default=0.0),
                    "workflow": got["answer"]["workflow"],
                    "seconds": got["seconds"],
                    "verdict": verdict,
                }
            )
            print(f"\r{len(rows)}/{len(entries)} {entry['id']}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    result = {
        "questions": arguments.questions.name,
        "model": arguments.model,
        "date": datetime.date.today().isoformat(),
        "longspan": longspan.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "median_seconds": round(median(row["seconds"] for row in rows), 2),
        "table": table(rows),
        "by_text": {
            name: table([row for row, entry in zip(rows, ordered, strict=True) if entry["text"] == name])
            for ordered in ([entry for questions in by_text.values() for entry in questions],)
            for name in by_text
        },
        "answers": rows,
    }
    for line in result["table"]:
        low, high = line["interval"]
        print(f"{line['measure']:52} {line['share']:6.1%}  [{low:.1%}, {high:.1%}]  of {line['questions']}")
    print(f"median {result['median_seconds']} s a question")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
