"""Memex: nothing of the evidence is lost, and the window keeps to its budget."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.corpus import Corpus
from longspan.errors import LongspanError, UsageError
from longspan.workflows import Answer, Budget, Settings, run
from longspan.workflows.memex import PRESSURE, Entry, Experience, Window, paged

from .conftest import Scripted, hay, simulated, with_needles


def asked(question: str, text: str, llm: object, given: Settings | None = None) -> Answer:
    corpus = Corpus.from_texts({"text": text})
    return asyncio.run(run(question, corpus, llm, "memex", given or Settings()))  # type: ignore[arg-type]


def do(action: str, **fields: Any) -> str:
    return json.dumps({"do": {"action": action, **fields}})


def window(budget: int = 400) -> Window:
    return Window("Why?", Experience(), simulated(2048), budget, system="You answer.")  # type: ignore[arg-type]


def everything(store: Experience) -> str:
    return "\n".join(store.get(name) for name, _ in store.index())


# -- the store ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=60)), max_size=20))
def test_what_is_put_comes_back_word_for_word(entries: list[tuple[str, str]]) -> None:
    store = Experience()
    names = [store.put(name, "about", content) for name, content in entries]
    assert len(set(names)) == len(names)
    assert [store.get(name) for name in names] == [content for _, content in entries]
    assert [name for name, _ in store.index()] == names
    store.close()


def test_the_store_outlives_the_run(tmp_path: Path) -> None:
    store = Experience(tmp_path / "experience.db")
    store.put("mill", "the code of the mill", "4711")
    store.close()
    again = Experience(tmp_path / "experience.db")
    assert again.get("mill") == "4711" and again.index() == [("mill", "the code of the mill")]
    assert again.put("mill", "another", "8") == "mill-2" and again.get("mill") == "4711"


def test_bad_stores_and_names_are_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_text("no database at all, but long enough to be looked at" * 9)
    with pytest.raises(LongspanError, match="cannot be used"):
        Experience(broken)
    with pytest.raises(UsageError, match="Nothing is archived"):
        Experience().get("moon")


@given(st.text(max_size=400), st.integers(4, 50))
def test_pages_have_everything(content: str, tokens: int) -> None:
    llm = simulated()
    pages = paged(content, tokens, llm)  # type: ignore[arg-type]
    assert "".join(pages) == content
    assert all(llm.count_tokens(page) <= tokens for page in pages)


# -- the window --------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), max_size=40), st.randoms(use_true_random=False))
def test_compressing_loses_nothing(sizes: list[int], chance: Any) -> None:
    """Whatever the agent names, or names wrongly: every observation can be read back, whole and once."""
    here = window()
    said: list[str] = []
    for at, size in enumerate(sizes):
        observation = f"observation {at}: " + " ".join(hay(size, at))
        said.append(observation)
        here.add(f"action {at}", observation)
        if chance.random() < 0.3:
            first, last = chance.randint(1, 50), chance.randint(1, 50)
            here.compress("a summary", [Entry(name=chance.choice("ab"), about="", first=first, last=last)])
    here.compress("a summary")
    stored = everything(here.store)
    assert all(observation in stored for observation in said)
    assert not here.turns


def test_the_index_is_folded_and_still_leads_everywhere() -> None:
    here = window(300)
    for at in range(60):
        here.add("action", f"observation number {at}")
        here.compress("", [Entry(name=f"n{at}", about=f"thing {at}", first=1, last=9_999)])
    shown = "\n".join(f"{name}: {about}" for name, about in here.recent)
    assert here.llm.count_tokens(shown) <= 0.2 * 300 + 20

    def names(text: str) -> set[str]:
        found: set[str] = set()
        for line in text.splitlines():
            name = line.partition(":")[0]
            found.add(name)
            if name.startswith("index-"):
                found |= names(here.store.get(name))
        return found

    assert {f"n{at}" for at in range(60)} <= names(shown)  # from index to index, every entry is reached


def test_recall_gives_pages_and_says_what_is_wrong() -> None:
    here = window(200)
    here.add("action", "The code is 4711. " + " ".join(hay(60)))
    (name,) = here.compress("", [Entry(name="code", about="", first=1, last=1)])
    assert name == "code" and "4711" in here.recall("code") and "(page 1 of" in here.recall("code")
    assert "has" in here.recall("code", 999) and "Nothing is archived" in here.recall("moon")


# -- the loop ----------------------------------------------------------------------------------------------------------


def test_many_codes_through_a_small_window() -> None:
    places = ["mill", "barn", "river", "town", "gate", "hall", "pond", "yard", "tower", "bridge"]
    needles = [f"The access code of the old {place} is {4000 + at}." for at, place in enumerate(places)]
    question = f"What are the access codes of the {', the '.join(f'old {p}' for p in places[:-1])} and the old bridge?"
    answer = asked(question, with_needles(900, needles), simulated(1500))
    assert all(str(4000 + at) in answer.text for at in range(10)), answer.note
    assert answer.trace is not None
    assert max(step.usage.prompt_tokens for step in answer.trace.walk() if step.kind == "llm") < 1500


def test_near_the_budget_nothing_but_compressing_or_answering_is_offered() -> None:
    offered: list[set[str]] = []

    class Watcher(Scripted):
        async def chat(self, messages, **limits):  # type: ignore[no-untyped-def]
            from longspan.llm.simulated import actions_of

            offered.append(actions_of(limits["schema"]))
            if offered[-1] == {"compress", "answer"}:
                used = sum(self.count_tokens(message["content"]) for message in messages)
                assert used > PRESSURE * 0.4 * self.window
                self.reply = lambda prompt: do("compress", summary="so far", entries=[])
            else:
                self.reply = lambda prompt: do("search", query=f"mill {len(offered)}")
            return await super().chat(messages, **limits)

    answer = asked("Why?", " ".join(hay(400)), Watcher(window=1500))
    assert {"compress", "answer"} in offered and "times compressed" in answer.note


def test_circles_broken_replies_and_budgets_end_the_run() -> None:
    assert "in circles" in asked("Why?", "It is so.", Scripted(do("search", query="so"))).note
    assert "did not keep to the protocol" in asked("Why?", "It is so.", Scripted("so")).note
    turn = iter(range(10_000))
    llm = Scripted(lambda prompt: do("search", query=f"so {next(turn)}"))
    assert "budget was spent" in asked("Why?", "It is so.", llm, Settings(budget=Budget(calls=3))).note
