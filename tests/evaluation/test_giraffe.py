"""Giraffe's tasks: the answers are found again in the text, the scores held against the official ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import inspect_ai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model

from longspan.errors import UsageError
from longspan.evaluation.lengths import counter
from longspan.evaluation.tasks import GROUPS, giraffe
from longspan.registry import parts

LENGTHS = (1024, 2048, 4096, 16384)
TASKS: dict[str, Callable[..., Any]] = {
    "longchat-lines": giraffe.longchat_lines,
    "freeform-qa": giraffe.freeform_qa,
    "altered-numeric-qa": giraffe.altered_numeric_qa,
}
QA = ("freeform-qa", "altered-numeric-qa")


def samples(name: str, length: int, seed: int = 0, **options: Any) -> list[Sample]:
    return list(
        TASKS[name](
            lengths=length, samples=options.pop("samples", 1), seed=seed, tokenizer="smollm2", **options
        ).dataset
    )


def context_of(sample: Sample) -> str:
    begin, end = sample.metadata["context"]
    return sample.input[begin:end]


def solve(name: str, sample: Sample) -> str:
    """The answer, found from question and text alone; it must be found in one place only."""
    question, context = sample.metadata["question"], context_of(sample)
    if name == "longchat-lines":
        (key,) = re.findall(r"line (\S+)\?", question)
        pattern = rf"^line {key}: REGISTER_CONTENT is <(\d+)>$"
    else:
        first, last = question.split("\n")[1].split("____")
        context = " ".join(context.split())
        pattern = re.escape(first) + r"(\S+?)" + re.escape(last)
    (answer,) = re.findall(pattern, context, re.MULTILINE)
    return str(answer)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", TASKS)
def test_the_answer_can_be_found_in_a_text_of_the_length(name: str, length: int) -> None:
    count = counter("smollm2")
    room = giraffe.LINES_ANSWER_TOKENS if name == "longchat-lines" else giraffe.QA_ANSWER_TOKENS
    line = count.count(giraffe.LINE.format(key="crimson-squirrel", value=12345)) if name == "longchat-lines" else 0
    for sample in samples(name, length, samples=1 if length > 4096 else 3):
        assert [solve(name, sample)] == sample.target
        assert all(needle in context_of(sample) for needle in sample.metadata["needles"])
        assert all(sample.target[0] in needle for needle in sample.metadata["needles"])
        assert sample.metadata["tokens"] == count.count(sample.input) + count.overhead + room
        assert length - max(0.01 * length, line) <= sample.metadata["tokens"] <= length


@pytest.mark.parametrize("name", TASKS)
def test_samples_are_the_same_again_whatever_other_lengths_there_are(name: str) -> None:
    again = list(TASKS[name](lengths="1k,2k", samples=1, tokenizer="smollm2").dataset)
    alone = samples(name, 2048, samples=2)
    old = {sample.id: sample.input for sample in again if sample.metadata["length"] == 2048}
    assert old.items() < {sample.id: sample.input for sample in alone}.items()
    assert len({sample.id for sample in again}) == len(again)
    assert samples(name, 1024, 1)[0].input != again[0].input


def test_a_line_stands_at_its_depth_under_a_key_of_its_own() -> None:
    for sample in samples("longchat-lines", 4096):
        lines = context_of(sample).splitlines()
        assert len(lines) == sample.metadata["dimensions"]["lines"]
        at = lines.index(sample.metadata["needles"][0])
        assert at == round(sample.metadata["depth"] * (len(lines) - 1))
    shown = list(islice(giraffe.records(Random(0)), 40_000))  # about a million tokens
    assert len({key for key, _ in shown}) == len(shown)
    assert {value for _, value in shown} <= set(range(1, giraffe.GREATEST + 1))
    assert len(set(giraffe.ADJECTIVES)) == len(giraffe.ADJECTIVES) and len(set(giraffe.NOUNS)) == len(giraffe.NOUNS)


@pytest.mark.parametrize("name", QA)
def test_answer_and_question_stand_where_they_should(name: str) -> None:
    found = samples(name, 2048, samples=2)
    assert len(found) == 2 * 3 * 2
    for sample in found:
        low, high = giraffe.ANSWER_AT[sample.metadata["dimensions"]["answer_at"]]
        assert low - 0.02 <= sample.metadata["depth"] <= high + 0.02
        place = sample.input.index(sample.metadata["question"])
        begin, end = sample.metadata["context"]
        assert place < begin if sample.metadata["dimensions"]["question_at"] == "start" else place >= end
    # One question is asked of the same document in all six ways, and at each length.
    assert len({sample.metadata["question"] for sample in found[:6]}) == 1
    assert samples(name, 4096)[0].metadata["question"] == found[0].metadata["question"]


def test_an_altered_number_is_altered_wherever_it_stands() -> None:
    for seed in range(3):
        known = [fact for fact in giraffe.local_facts() if fact.number]
        Random(f"altered-numeric-qa-{seed}").shuffle(known)
        fact = known[0]
        for sample in samples("altered-numeric-qa", 4096, seed):
            context = context_of(sample)
            (new,) = sample.target
            assert new != fact.answer and not re.search(rf"(?<![\d.,]){re.escape(fact.answer)}(?![.,]?\d)", context)
            assert fact.answer in fact.document.text and new in context


@given(st.integers(0, 99_999), st.integers(0, 9))
def test_a_year_stays_near_and_another_number_keeps_its_digits(number: int, seed: int) -> None:
    other = giraffe.another_number(str(number), Random(seed), set())
    assert other != str(number) and len(other) == len(str(number))
    if 1000 <= number <= 2100:
        assert abs(int(other) - number) <= 10


def test_numbers_are_altered_whole_and_in_their_form() -> None:
    assert (
        giraffe.replaced("10", "37", "10 of 110, 10.5; v10 (10). 10,000 10") == "37 of 110, 10.5; v37 (37). 10,000 37"
    )
    assert giraffe.replaced("3.8", "6.1", "In 3.8, not 3.8.2 or 13.8.") == "In 6.1, not 3.8.2 or 13.8."
    assert re.fullmatch(r"[1-9]\d,\d\d\d\.\d", giraffe.another_number("12,345.6", Random(0), set()))
    standing = {str(number) for number in range(10, 100) if number != 57}
    assert giraffe.another_number("42", Random(0), standing) == "57"
    assert (
        giraffe.another_number("1998", Random(0), {str(year) for year in range(1988, 2009) if year != 2003}) == "2003"
    )


def test_there_are_questions_enough_and_none_gives_its_answer_away() -> None:
    facts = giraffe.local_facts()
    assert len(facts) > 300 and sum(fact.number for fact in facts) > 40
    assert len({(fact.sentence, fact.answer) for fact in facts}) == len(facts)
    for fact in facts:
        assert fact.answer.lower() not in f"{fact.document.title} {fact.sentence}".lower()
        assert fact.answer in fact.document.text[fact.start : fact.end]


# The official presence accuracy (the notebook of the WikiQA metrics) of these pairs.
@pytest.mark.parametrize(
    ("target", "answer", "official"),
    [
        ("3.8", "It was changed in version 3.8.", True),
        ("3.8", "", False),
        ("3.8", "version 3.80", True),
        ("IndexError", "an indexerror", False),
        ("IndexError", '"IndexError" is raised', True),
        (" 1998 ", "In 1998, not 1999", True),
        ("1998", "1999, or perhaps 1998", True),
        ("the mayor", "The mayor", False),
    ],
)
def test_presence_is_the_official_one(target: str, answer: str, official: bool) -> None:
    assert giraffe.present(answer, target) is official


# What the official reading of LongChat-Lines' replies (the first digits) makes of these.
@pytest.mark.parametrize(
    ("target", "answer", "official"),
    [
        ("24169", "24169", True),
        ("24169", "The REGISTER_CONTENT is <24169>.", True),
        ("24169", "line calm-otter: 24169 and line wise-fox: 3", True),
        ("24169", "3 and 24169", False),
        ("24169", "24,169", False),
        ("24169", "024169", True),
        ("24169", "no number", False),
        ("24169", "", False),
        ("24169", "241690", False),
        ("7", "-7", True),
    ],
)
def test_lines_are_scored_as_by_the_official_code(target: str, answer: str, official: bool) -> None:
    assert giraffe.first_number_is(answer, target) is official


@pytest.mark.parametrize("name", TASKS)
def test_a_run_scores_right_replies_with_one(name: str, tmp_path: Path) -> None:
    task = TASKS[name](lengths="1k", samples=1, tokenizer="smollm2")
    replies = [ModelOutput.from_content("mock", solve(name, sample)) for sample in task.dataset]
    for reply in replies:
        reply.usage = ModelUsage()  # else inspect counts tokens with a vocabulary that it downloads
    model = get_model("mockllm/model", custom_outputs=replies)
    (log,) = inspect_ai.eval(task, model=model, log_dir=str(tmp_path), display="none", max_samples=1)
    assert log.status == "success", log.error
    assert log.results.scores[0].metrics["mean"].value == 1.0


# One's own documents


def write(path: Path, *lines: object) -> str:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return str(path)


HARBOUR = {
    "document": "The harbour was dug in 1874.\nIts wall is 310 metres long. The first ship, the Aurora, came in 1876.",
    "question": "When was the harbour dug?",
    "answer": "1874",
}
WALL = {**HARBOUR, "question": "Which ship came first?", "answer": "the Aurora"}
LONG = {
    "document": "\n\n".join(f"Room {number} holds {number * 7 + 3} chairs." for number in range(2, 900)),
    "question": "How many chairs does room 500 hold?",
    "answer": "3503",
}


def test_own_documents_are_padded_or_cut(tmp_path: Path) -> None:
    file = write(tmp_path / "own.jsonl", HARBOUR, "", WALL, LONG)
    found = samples("freeform-qa", 2048, samples=3, file=file)
    assert len(found) == 18 and {sample.target[0] for sample in found} == {"1874", "the Aurora", "3503"}
    for sample in found:
        context = context_of(sample)
        assert sample.target[0] in context and sample.target[0] in sample.metadata["needles"][0]
        assert 0.99 * 2048 <= sample.metadata["tokens"] <= 2048
        if sample.target[0] == "3503":
            assert "Room 500 holds 3503 chairs." in context and "Room 3 holds" not in context
        else:
            # The other questions on the same document do not bring it in a second time.
            assert context.count("The first ship") <= 1 and "chairs" in context


def test_own_numbers_are_altered_and_other_answers_left_out(tmp_path: Path) -> None:
    file = write(tmp_path / "own.jsonl", HARBOUR, WALL)
    for sample in samples("altered-numeric-qa", 1024, file=file):
        assert "1874" not in context_of(sample) and f"dug in {sample.target[0]}." in context_of(sample)
        assert 1864 <= int(sample.target[0]) <= 1884
    with pytest.raises(UsageError, match=r"own\.jsonl has 1 questions with a number for an answer: 2 samples"):
        samples("altered-numeric-qa", 1024, samples=2, file=file)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{'document'", "this is no JSON"),
        ("[1, 2]", "expected an object with document, question, answer"),
        ({"document": "a", "question": "b"}, "'answer' must be a text"),
        ({**HARBOUR, "answer": 1874}, "'answer' must be a text"),
        ({**HARBOUR, "question": "  "}, "'question' must be a text that is not empty"),
        ({**HARBOUR, "answer": "the Borealis"}, "'the Borealis' does not stand in the document"),
        ({**HARBOUR, "answer": "31"}, "'31' does not stand in the document"),
    ],
)
@pytest.mark.parametrize("name", QA)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, name: str, line: object, complaint: str) -> None:
    file = write(tmp_path / "own.jsonl", HARBOUR, "", line)
    with pytest.raises(UsageError, match=rf"own\.jsonl, line 3: .*{re.escape(complaint)}"):
        samples(name, 1024, file=file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.jsonl cannot be read: No such file"):
        samples("freeform-qa", 1024, file=str(tmp_path / "none.jsonl"))
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UsageError, match=r"latin\.jsonl cannot be read: it is no UTF-8"):
        samples("freeform-qa", 1024, file=str(tmp_path / "latin.jsonl"))
    with pytest.raises(UsageError, match=r"empty\.jsonl has no questions"):
        samples("freeform-qa", 1024, file=write(tmp_path / "empty.jsonl", ""))


def test_a_length_without_room_is_refused() -> None:
    for name in TASKS:
        with pytest.raises(UsageError, match=r"too short for a line|more than the length"):
            samples(name, 64)


def test_tasks_are_registered_for_their_system() -> None:
    assert [part.slug for part in parts("task") if "giraffe" in part.systems] == sorted(TASKS)
    assert sorted(GROUPS["giraffe"]) == sorted(TASKS)
