"""Reading everything: lists joined by the program, notes condensed in rounds, runs that go on where they stopped."""

from __future__ import annotations

import asyncio
import re

import pytest

from longspan.corpus import Corpus
from longspan.errors import LongspanError
from longspan.workflows import Answer, Settings, run

from .conftest import Scripted, ScriptedScorer

COUNTRY = "\n\n".join(
    f"{n}. Village number {n}\n\n"
    + f"The village {n} lies by a river and has a mill. " * 25
    + (f"Its mayor is Mayor{n}." if n % 3 == 0 else "It has no mayor.")
    for n in range(1, 31)
)


def asked(question: str, llm: Scripted, settings: Settings, text: str = COUNTRY) -> Answer:
    return asyncio.run(run(question, Corpus.from_texts({"country.txt": text}), llm, "map-reduce", settings))


def mayors(prompt: str) -> str:
    found = re.findall(r"Its mayor is (Mayor\d+)", prompt)
    return "\n".join(f"- {name}" for name in found) or "NONE"


def test_every_item_of_every_part_is_listed_once_with_its_quote(settings: Settings) -> None:
    llm = Scripted(mayors, window=1500)
    answer = asked("List all mayors.", llm, settings)
    assert answer.text.splitlines() == [f"- Mayor{3 * n} [{n}]" for n in range(1, 11)]
    assert [citation.quote for citation in answer.citations] == [f"Its mayor is Mayor{3 * n}." for n in range(1, 11)]
    assert len(llm.prompts) > 5
    read = " ".join(llm.prompts)
    assert all(f"village {n} lies" in read for n in range(1, 31))


def test_a_count_is_counted_by_the_program(settings: Settings) -> None:
    answer = asked("Count all mayors.", Scripted(mayors, window=1500), settings)
    assert answer.text.startswith("10:\n- Mayor3 [1]")


def test_items_of_one_sentence_share_its_number(settings: Settings) -> None:
    llm = Scripted("- Ada Quill\n- Bo Rask\n- Cy Thorn", window=1500)
    answer = asked(
        "List all members.", llm, settings, "The members are Ada Quill and Bo Rask.\n\nCy Thorn is one, too."
    )
    assert answer.text.splitlines() == ["- Ada Quill [1]", "- Bo Rask [1]", "- Cy Thorn [2]"]
    assert [citation.quote for citation in answer.citations] == [
        "The members are Ada Quill and Bo Rask.",
        "Cy Thorn is one, too.",
    ]


def test_items_that_the_text_does_not_have_are_left_out(settings: Settings) -> None:
    llm = Scripted(lambda prompt: mayors(prompt) + "\n- Napoleon Bonaparte", window=1500)
    answer = asked("List all mayors.", llm, settings)
    assert "Napoleon" not in answer.text
    assert "not in the text and were left out" in answer.note


def test_nothing_found_is_a_refusal(settings: Settings) -> None:
    answer = asked("List all bishops.", Scripted("NONE", window=1500), settings)
    assert answer.refused
    assert answer.citations == []


def test_notes_are_condensed_until_they_fit(settings: Settings) -> None:
    settings.max_tokens = 60

    def reply(prompt: str) -> str:
        if prompt.startswith("Notes on the parts"):
            return "Every third village has a mayor."
        return "Notes: " + "the village lies by a river and has a mill, says this part. " * 3

    llm = Scripted(reply, window=400)
    answer = asked("Summarise it.", llm, settings)
    assert answer.text == "Every third village has a mayor."
    reductions = [prompt for prompt in llm.prompts if prompt.startswith("Notes on the parts")]
    assert len(reductions) > 1


def test_a_run_that_was_stopped_goes_on_where_it_was(settings: Settings) -> None:
    calls = 0

    def breaks(prompt: str) -> str:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise KeyboardInterrupt
        return mayors(prompt)

    with pytest.raises(KeyboardInterrupt):
        asked("List all mayors.", Scripted(breaks, window=1500), settings)
    whole = Scripted(mayors, window=1500)
    asked("List all the mayors.", whole, settings)  # another question: nothing to go on with
    again = Scripted(mayors, window=1500)
    answer = asked("List all mayors.", again, settings)
    assert len(answer.citations) == 10
    assert len(again.prompts) == len(whole.prompts) - 4


def test_a_spent_budget_is_named_with_what_was_not_read(settings: Settings) -> None:
    settings.budget = 4000
    answer = asked("List all mayors.", Scripted(mayors, window=1500), settings)
    assert re.search(r"The budget was spent before \d+ of \d+ parts were read", answer.note)
    assert answer.usage.prompt_tokens + answer.usage.completion_tokens <= 4000


def test_the_extract_reader_lists_the_statements_that_have_the_words(settings: Settings) -> None:
    answer = asked("List all villages whose mayor is named.", ScriptedScorer(), settings)
    assert not answer.refused
    assert all("mayor" in citation.quote for citation in answer.citations)
    assert sum("Its mayor is" in citation.quote for citation in answer.citations) == 10


def test_the_extract_reader_counts_statements(settings: Settings) -> None:
    answer = asked("How many times is a mayor named Mayor9 mentioned?", ScriptedScorer(), settings)
    assert answer.text.startswith("1 statements") or answer.text.startswith("1 statement")


def test_the_extract_reader_summarises_by_themes(settings: Settings) -> None:
    themes = "\n\n".join(
        f"{name}\n{'=' * len(name)}\n\n" + " ".join(f"{name} number {i} is about {name} and {word}." for i in range(40))
        for name, word in (("Wheat", "flour"), ("Ships", "harbours"), ("Stars", "telescopes"))
    )
    answer = asked("Summarise this text.", ScriptedScorer(), settings, themes)
    assert {word for word in ("Wheat", "Ships", "Stars") if word in answer.text} == {"Wheat", "Ships", "Stars"}
    for citation in answer.citations:
        assert citation.quote == themes[citation.start : citation.end]


def test_a_failure_of_the_model_is_its_own_sentence(settings: Settings) -> None:
    def fails(prompt: str) -> str:
        raise LongspanError("The endpoint is down.")

    with pytest.raises(LongspanError, match="endpoint is down"):
        asked("List all mayors.", Scripted(fails, window=1500), settings)
