"""InftyThink: bounded rounds, stop detection, and long solutions cut into segments."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.corpus import Corpus
from longspan.errors import UsageError
from longspan.llm import SimulatedLLM
from longspan.llm.simulated import Curve
from longspan.workflows import Answer, Settings, run
from longspan.workflows.inftythink import (
    ROUNDS,
    Saw,
    parse,
    segments,
    split_solution,
    steps,
    think,
    training_rows,
)

from .conftest import Scripted, simulated, with_needles

CODE = "The access code of the mill is 4711."
ASKED = "What is the access code of the mill?"


def asked(question: str, text: str, llm: object) -> Answer:
    return asyncio.run(run(question, Corpus.from_texts({"text": text}), llm, "inftythink", Settings()))  # type: ignore[arg-type]


def rounds(answer: Answer) -> list[list[int]]:
    assert answer.trace is not None
    found: list[list[int]] = next(step for step in answer.trace.walk() if step.name == "rounds").output["rounds"]
    return found


@pytest.mark.parametrize("size", [30, 300, 1500])
def test_the_window_stays_bounded_at_any_length(size: int) -> None:
    llm = simulated(1200)
    answer = asked(ASKED, with_needles(size, [CODE]), llm)
    assert "4711" in answer.text and not answer.refused
    assert answer.citations and "4711" in answer.citations[0].quote
    assert max(read + written for read, written in rounds(answer)) <= 1200
    assert len(rounds(answer)) <= ROUNDS + 1


def test_facts_of_several_parts_come_together_in_the_summary() -> None:
    chain = ["LET AAA = 12345.", "LET BBB = AAA.", "LET CCC = BBB."]
    answer = asked("Which variables hold the value 12345?", with_needles(250, chain), simulated(1200))
    assert set(answer.text.split()) == {"AAA", "BBB", "CCC"}
    assert len(rounds(answer)) > 3


def test_a_running_total() -> None:
    text = with_needles(300, ["A tiger came."] * 7)
    answer = asked('How many times is the word "tiger" mentioned?', text, simulated(1200))
    assert answer.text == "7"


def test_a_text_that_does_not_tell_is_refused() -> None:
    assert asked(ASKED, with_needles(100, []), simulated(1200)).refused


def test_a_small_model_is_asked_for_facts_and_what_no_part_carries_is_left_out() -> None:
    def reply(prompt: str) -> str:
        found = re.search(r"access code of the mill is (\d+)", prompt.partition("Text:")[2])
        return f"The access code of the mill is {found[1]}." if found else "The access code of the mill is 9999."

    llm = Scripted(reply, window=2048, reader="extract")
    answer = asked(ASKED, with_needles(600, [CODE]), llm)
    assert answer.text == CODE
    assert "left out" in answer.note and "9999" not in answer.text


def test_replies_by_their_tags() -> None:
    whole = parse("<think>\nA.\n</think>\n<summary>\n* a\n</summary>")
    assert (whole.thought, whole.summary, whole.conclusion) == ("A.", "* a", None)
    last = parse("<think>A.</think>It is 7.")
    assert last.formed and last.conclusion == "It is 7."
    plain = parse("It is 7.")
    assert not plain.formed and plain.conclusion == "It is 7."
    cut = parse("<think>A and then")
    assert not cut.formed and cut.summary is None and cut.conclusion is None


def test_thinking_ends_when_there_is_no_summary() -> None:
    said = iter(
        ["<think>one</think><summary>1</summary>", "<think>two</think><summary>2</summary>", "<think>c</think>3"]
    )
    saw = Saw()
    assert asyncio.run(think("Count to three.", Scripted(lambda prompt: next(said)), saw=saw)) == "3"  # type: ignore[arg-type]
    assert len(saw.rounds) == 3


def test_thinking_in_circles_ends() -> None:
    llm = Scripted(lambda prompt: "7" if prompt.startswith("What is known") else "<summary>the same</summary>")
    assert asyncio.run(think("Why?", llm)) == "7"  # type: ignore[arg-type]
    assert len(llm.prompts) == 3


def test_a_reply_that_is_cut_off_is_asked_for_its_summary() -> None:
    def reply(prompt: str) -> str:
        if "Thinking so far" in prompt:
            return "known: one"
        return "done" if "known: one" in prompt else "<think>" + "on and " * 500

    llm = Scripted(reply, window=1024)
    assert asyncio.run(think("Why?", llm)) == "done"  # type: ignore[arg-type]


def test_the_saws_cost_is_less_than_one_chains() -> None:
    saw = Saw([(100, 100)] * 8)
    chain = 1600 * 1601 // 2
    assert saw.peak == 200 and chain / saw.pairs > 7.9  # n rounds see a nth of the pairs


# -- training data -----------------------------------------------------------------------------------------------------

THINKING = (
    "Let me see. We add one and two.\n\nso three it is.\n\nThen we double it: six.\n\nWait, check. Two times three is "
    "six.\n\n(yes)\n\nNow add one more. Seven.\n\nFinally we are done."
)


def words(text: str) -> int:
    return len(text.split())


def test_steps_are_the_official_ones() -> None:
    """What `split_thoughts` of ZJU-REAL/InftyThink (data_preprocess/segmentation.py) gives for this text."""
    assert steps(THINKING) == [
        "Let me see. We add one and two.\n\nso three it is.",
        "Then we double it: six.",
        "Wait, check. Two times three is six.\n\n(yes)",
        "Now add one more. Seven.",
        "Finally we are done.",
    ]


def test_segments_keep_to_eta_where_the_official_ones_exceed_it() -> None:
    """With words as tokens the official `process` gives segments of 17, 13 and 4 words at η = 12, of 34 at η = 30."""
    assert [words(each) for each in segments(THINKING, 12, words)] == [12, 5, 8, 9]
    assert [words(each) for each in segments(THINKING, 40, words)] == [34]


@given(st.text(alphabet="Ab .\n", max_size=300), st.integers(8, 40))
def test_segments_hold_everything_within_eta(text: str, eta: int) -> None:
    found = segments(text, eta, len)
    assert all(len(each) <= eta for each in found)
    assert "".join("".join(found).split()) == "".join(text.split())


def test_a_solution_becomes_rows_that_follow_each_other() -> None:
    llm = Scripted(lambda prompt: f"* summary {len(prompt.split())}")
    solution = f"<think>\n{THINKING}\n</think>The answer is 7."
    rows = asyncio.run(training_rows("What?", solution, llm, eta=12))  # type: ignore[arg-type]
    assert len(rows) == 4
    summaries = [re.search(r"<summary>\n(.*)\n</summary>", row["completion"][0]["content"]) for row in rows]
    assert all(summaries[:-1]) and summaries[-1] is None
    for before, row in zip(summaries, rows[1:], strict=False):
        assert before is not None and row["prompt"][0]["content"] == f"What?<history>{before[1]}</history>"
    assert rows[-1]["completion"][0]["content"].endswith("</think>The answer is 7.")


def test_a_short_solution_stays_one_row() -> None:
    rows = asyncio.run(training_rows("What?", "<think>\nShort.\n</think>7", Scripted("x"), eta=4096))  # type: ignore[arg-type]
    assert rows == [
        {
            "prompt": [{"role": "user", "content": "What?"}],
            "completion": [{"role": "assistant", "content": "<think>\nShort.\n</think>7"}],
        }
    ]


def test_other_solutions_are_refused() -> None:
    with pytest.raises(UsageError):
        split_solution("The answer is 7.")
    with pytest.raises(UsageError):
        segments("A.", 2, words)


def test_errors_of_long_prompts_are_kept_away() -> None:
    """A reader that rots with length is right in short rounds, where it would be wrong with the whole text at once."""
    curve = Curve(((1000, 1.0), (3000, 0.0)))
    text = with_needles(300, [CODE])
    llm = simulated(8000, curve)
    llm.profile = type(llm.profile)(8000, 1000, curve)
    assert "4711" in asked(ASKED, text, llm).text
    assert isinstance(llm, SimulatedLLM)
