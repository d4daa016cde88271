"""`longspan dataset`: rows for training, made once, and what is wrong with an input told by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longspan import datasets
from longspan.corpus import Corpus
from longspan.errors import UsageError
from longspan.llm import SimulatedLLM
from longspan.llm.simulated import Curve, Profile


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def llm() -> SimulatedLLM:
    return SimulatedLLM("of words", profile=Profile(2048, 2048, Curve(((0, 1.0),))), count_batch=words)


def solved(count: int) -> str:
    thinking = "\n\n".join(f"Step {at} is done here." for at in range(count))
    return json.dumps({"question": "What is the pass key?", "solution": f"<think>\n{thinking}\n</think>Seven."})


def test_solutions_become_rows_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(f"{solved(9)}\n\n{solved(2)}\n")
    assert datasets.inftythink(source, out, llm(), eta=20) == (2, 3 + 1)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["source"] for row in rows] == [1, 1, 1, 3]
    assert {"prompt", "completion", "source"} == set(rows[0])
    whole = out.read_text()
    out.write_text(whole[: whole.rindex("\n", 0, -1) + 20])  # the last line was being written
    assert datasets.inftythink(source, out, llm(), eta=20) == (2, 1)
    assert out.read_text() == whole
    assert datasets.inftythink(source, out, llm(), eta=20) == (2, 0)


def test_conversations_are_taken_too(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    said = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "<think>\nSo.\n</think>7"}]
    source.write_text(json.dumps({"messages": said}))
    assert datasets.inftythink(source, tmp_path / "out.jsonl", llm(), eta=20) == (1, 1)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("{", "in.jsonl:2 is no JSON"),
        ("[1]", "in.jsonl:2 is no JSON object"),
        ('{"question": "Why?"}', "in.jsonl:2 needs"),
        ('{"question": "Why?", "solution": "7"}', "in.jsonl:2: The solution is not of the form"),
    ],
)
def test_bad_lines_are_told_and_good_ones_kept(tmp_path: Path, line: str, wrong: str) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(f"{solved(2)}\n{line}\n")
    with pytest.raises(UsageError, match=wrong.replace(".", "[.]")):
        datasets.inftythink(source, out, llm(), eta=20)


def test_trees_become_pairs(tmp_path: Path) -> None:
    text = "The mill turns. " * 80 + "The access code of the mill is 11. " + "The barn waits. " * 80
    corpus = Corpus.from_texts({"text": text + "The access code of the barn is 22."})
    questions = tmp_path / "questions.jsonl"
    asked = {"question": "What are the access codes of the mill and the barn?", "answer": "22"}
    questions.write_text(json.dumps(asked) + "\n")
    assert datasets.agenticlu(corpus, questions, tmp_path / "out", llm(), depth=2, width=3) == (1, 1)
    row = json.loads((tmp_path / "out" / "sft.jsonl").read_text())
    assert row["messages"][0]["role"] == "user" and "<para 0>" in row["messages"][0]["content"]
    assert datasets.agenticlu(corpus, questions, tmp_path / "out", llm(), depth=2, width=3) == (1, 0)
    questions.write_text('{"question": 7}\n')
    with pytest.raises(UsageError, match="needs a question and an answer"):
        datasets.agenticlu(corpus, questions, tmp_path / "other", llm(), depth=2, width=3)
