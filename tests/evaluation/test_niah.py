"""Needle in a haystack: the grid, several needles, none, and how answers are scored."""

from __future__ import annotations

import asyncio
from pathlib import Path

import inspect_ai
import pytest
from inspect_ai.model import ModelName, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Target
from inspect_ai.solver import TaskState

from longspan.errors import UsageError
from longspan.evaluation.tasks.niah import NONE, niah, niah_multi, niah_none, says_none
from longspan.evaluation.tasks.passkey import passkey


def test_a_needle_for_every_cell() -> None:
    samples = list(niah("512,1k", depths=3, samples=2, tokenizer="smollm2").dataset)
    assert [(sample.metadata["length"], sample.metadata["depth"]) for sample in samples] == [
        (length, depth) for length in (512, 1024) for depth in (0.0, 0.5, 1.0) for _ in range(2)
    ]
    assert len({sample.id for sample in samples}) == len({str(sample.target) for sample in samples}) == 12
    for sample in samples:
        start, end = sample.metadata["context"]
        context = sample.input[start:end]
        (needle,), (code,) = sample.metadata["needles"], sample.target
        assert context.count(needle) == sample.input.count(code) == 1
        assert code in needle
        at = context.index(needle) / (len(context) - len(needle))
        assert at == pytest.approx(sample.metadata["depth"], abs=0.15)
        assert 0 <= sample.metadata["length"] - sample.metadata["tokens"] <= sample.metadata["length"] / 100


def test_a_sample_does_not_depend_on_what_else_is_asked_for() -> None:
    few = list(niah(1024, depths=2, samples=1, tokenizer="smollm2").dataset)
    many = {sample.id: sample for sample in niah("512,1k", depths=3, samples=2, tokenizer="smollm2").dataset}
    assert all(many[sample.id].input == sample.input for sample in few)


@pytest.mark.parametrize("haystack", ["noise", "repeated", "real"])
def test_several_needles(haystack: str) -> None:
    for sample in niah_multi(2048, depths=2, samples=1, haystack=haystack, tokenizer="smollm2").dataset:
        needles, codes = sample.metadata["needles"], list(sample.target)
        places = [sample.input.index(needle) for needle in needles]
        assert places == sorted(places) and len(set(places)) == 4
        assert all(code in needle for code, needle in zip(codes, needles, strict=True))
        assert all(sample.input.count(code) == 1 for code in codes)


def test_without_a_needle_the_text_tells_nothing() -> None:
    for sample in niah_none(1024, depths=3, samples=1, tokenizer="smollm2").dataset:
        assert sample.metadata["needles"] == [] and sample.metadata["depth"] is None
        assert list(sample.target) == [NONE]
        assert sample.input.count("access code") == 1  # in the question alone
        assert sample.input.endswith('If the text does not tell, answer "none".')


def score(answer: str) -> float:
    state = TaskState(ModelName("none/none"), 0, 1, "", [], output=ModelOutput.from_content("none", answer))
    found = asyncio.run(says_none()(state, Target([NONE])))
    assert found is not None
    return found.as_float()


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("none", 1),
        ("None.", 1),
        ("The text does not tell the access code.", 1),
        ("The access code of the blue fox is not mentioned in the text.", 1),
        ("It isn't given.", 1),
        ("I cannot find it in the 2 paragraphs.", 1),
        ("There is no access code for the blue fox.", 1),
        ("4165841", 0),
        ("The access code of the blue fox is 416 58 41.", 0),
        ("None is given, but it may be 4165841.", 0),
        ("The access code of the blue fox is swordfish.", 0),
        ("The blue fox is a notable animal.", 0),
        ("", 0),
    ],
)
def test_made_up_answers_are_wrong(answer: str, right: float) -> None:
    assert score(answer) == right


def test_too_many_needles() -> None:
    with pytest.raises(UsageError, match="needles=99 cannot be hidden: give 0 to 32"):
        niah(1024, needles=99, tokenizer="smollm2")


def test_pass_keys_in_any_hay() -> None:
    for haystack in ("noise", "repeated", "real"):
        for sample in passkey(1024, depths=2, samples=1, haystack=haystack, tokenizer="smollm2").dataset:
            assert sample.input.count(sample.metadata["needles"][0]) == 1
            assert 1000 <= sample.metadata["tokens"] <= 1024


def test_inspect_runs_them(tmp_path: Path) -> None:
    for task, reply in ((niah_none, "None."), (niah, "I do not know.")):
        output = ModelOutput.from_content("mock", reply)
        output.usage = ModelUsage()  # else inspect counts tokens with a vocabulary that it downloads
        (log,) = inspect_ai.eval(
            task(512, depths=1, samples=1, tokenizer="smollm2"),
            model=get_model("mockllm/model", custom_outputs=[output]),
            display="none",
            log_dir=str(tmp_path),
        )
        assert log.status == "success", log.error
        assert log.results is not None
        assert log.results.scores[0].metrics["mean"].value == float(reply == "None.")
