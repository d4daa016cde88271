"""ExtAgents: agents in parallel, findings ranked and accumulated, shared until there is an answer."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.corpus import Corpus
from longspan.errors import LongspanError
from longspan.workflows import Answer, Budget, Settings, run
from longspan.workflows.atoms import Part
from longspan.workflows.extagents import ROUNDS, Found, accumulated

from .conftest import Scripted, simulated, with_needles

CODE = "The access code of the mill is 4711."
ASKED = "What is the access code of the mill?"


def asked(question: str, text: str, llm: object, given: Settings | None = None) -> Answer:
    corpus = Corpus.from_texts({"text": text})
    return asyncio.run(run(question, corpus, llm, "extagents", given or Settings(max_tokens=64)))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [30, 300, 1500])
def test_a_fact_is_found_in_a_text_of_any_size(size: int) -> None:
    answer = asked(ASKED, with_needles(size, [CODE]), simulated(1200))
    assert "4711" in answer.text
    assert "4711" in answer.citations[0].quote


def test_findings_accumulate_until_the_agent_is_confident() -> None:
    codes = [f"The access code of the {place} is {code}." for place, code in (("mill", 11), ("barn", 22), ("ox", 33))]
    question = "What are the access codes of the mill, the barn and the ox?"
    answer = asked(question, with_needles(400, codes), simulated(1200))
    assert all(code in answer.text for code in ("11", "22", "33"))
    assert re.search(r"rests on [34] findings", answer.note)


@given(st.integers(0, 40))
def test_the_ranks_double(count: int) -> None:
    found = [Found(str(at), Part(at, at + 1, 1), 1.0) for at in range(count)]
    sizes = [len(each) for each in accumulated(found)]
    assert sizes == sorted(set(sizes)) and (sizes[-1:] == [count] if count else not sizes)
    assert all(size & (size - 1) == 0 for size in sizes[:-1])


def test_what_was_found_is_shared_in_the_next_round() -> None:
    """The second fact can be seen to matter only by an agent that knows the first."""
    text = with_needles(300, ["The mill belongs to Jonas.", "Jonas keeps the key under the bench."])

    def reply(prompt: str) -> str:
        if prompt.startswith("You and others"):
            chunk = prompt.partition("unk:\n")[2]
            told = prompt.partition("Found so far")[2].partition("Chunk:")[0] if "Found so far" in prompt else ""
            if "belongs to Jonas" in chunk and not told:
                return "The mill belongs to Jonas."
            return "Jonas keeps the key under the bench." if "under the bench" in chunk and "Jonas" in told else "NONE"
        found = prompt.partition("Answer the question")[0]
        return "Under the bench." if "bench" in found else "NONE"

    answer = asked("Where is the key of the mill?", text, Scripted(reply, window=800))
    assert answer.text == "Under the bench."
    assert "in 2 rounds" in answer.note
    assert any("bench" in citation.quote for citation in answer.citations)


def test_an_agent_that_is_never_confident_gives_its_best_in_the_end() -> None:
    calls = 0

    def reply(prompt: str) -> str:
        nonlocal calls
        if prompt.startswith("You and others"):
            calls += 1
            return f"The mill turns on day {calls}."
        return "Perhaps day 3." if "best answer" in prompt else "NONE"

    answer = asked("When does the mill turn?", with_needles(60, []), Scripted(reply, window=1200))
    assert answer.text == "Perhaps day 3." and "never confident" in answer.note
    assert f"in {ROUNDS} rounds" in answer.note


def test_a_small_model_is_believed_only_where_its_part_carries_it() -> None:
    def reply(prompt: str) -> str:
        found = re.search(r"access code of the mill is (\d+)", prompt.partition("Text:")[2])
        return f"The access code of the mill is {found[1]}." if found else "The access code of the mill is 9999."

    answer = asked(ASKED, with_needles(600, [CODE]), Scripted(reply, window=2048, reader="extract"))
    assert answer.text == CODE and answer.citations[0].quote == CODE


def test_nothing_found_is_refused_and_a_spent_budget_is_said() -> None:
    assert asked(ASKED, with_needles(100, []), simulated(1200)).refused
    answer = asked(ASKED, with_needles(600, [CODE]), simulated(1200), Settings(max_tokens=64, budget=Budget(calls=3)))
    assert "budget was spent" in answer.note


def test_a_question_without_room_is_refused_in_a_sentence() -> None:
    with pytest.raises(LongspanError, match="ask a shorter"):
        asked(ASKED, with_needles(100, [CODE]), simulated(150))
