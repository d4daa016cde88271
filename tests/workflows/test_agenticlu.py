"""AgenticLU: clarifications that point back, the tree's search, and its export for training."""

from __future__ import annotations

import asyncio

import pytest

from longspan.corpus import Corpus
from longspan.errors import UsageError
from longspan.workflows import Answer, Budget, Settings, run
from longspan.workflows.agenticlu import (
    DEPTH,
    WIDTH,
    Node,
    below,
    closeness,
    dpo_row,
    grown,
    sft_row,
)

from .conftest import Scripted, simulated, with_needles

CODE = "The access code of the mill is 4711."
ASKED = "What is the access code of the mill?"


def asked(question: str, text: str, llm: object, given: Settings | None = None) -> Answer:
    corpus = Corpus.from_texts({"text": text})
    return asyncio.run(run(question, corpus, llm, "agenticlu", given or Settings()))  # type: ignore[arg-type]


def test_a_fact_that_is_pointed_back_to_at_once_needs_no_clarification() -> None:
    answer = asked(ASKED, with_needles(300, [CODE]), simulated(2048))
    assert answer.text == CODE and "none was needed" in answer.note
    assert answer.citations[0].quote == CODE


class Two(Scripted):
    """The question's words lead nowhere; the clarification's lead to the fact. Sampled clarifications differ."""

    sampled = 0

    def answered(self, prompt: str) -> str:
        if "Ask one short question" in prompt:
            self.sampled += 1
            return ["Who grinds the rye?", "What colour is the sky?"][self.sampled % 2]
        if "Reply with yes" in prompt:
            text, _, question = prompt.partition("\nQuestion: ")
            if "Answer:" in prompt:  # is it done?
                return "yes" if "Jonas" in prompt else "no"
            return "yes" if "rye" in question and "rye" in text else "no"
        return "It is Jonas." if "Jonas" in prompt.partition("What is known")[0] else "NONE"


def test_a_clarification_finds_what_the_question_does_not() -> None:
    llm = Two(window=2048)
    llm.reply = llm.answered
    answer = asked("Which man has the job?", with_needles(200, ["Jonas grinds rye at the mill."]), llm)
    assert answer.text == "It is Jonas."
    assert 'asked "Who grinds the rye?"' in answer.note
    assert "Jonas" in answer.citations[0].quote


def test_the_search_ends_where_nothing_is_better_and_within_its_depth() -> None:
    llm = Scripted(lambda prompt: "no" if "Reply with yes" in prompt else "NONE", window=2048)
    assert asked(ASKED, with_needles(100, []), llm).refused
    restless = iter(range(10_000))

    def reply(prompt: str) -> str:
        if "Reply with yes" in prompt:
            return "no" if "Answer:" in prompt else "yes"
        return f"What is thing {next(restless)}?" if "Ask one" in prompt else f"The mill turns on day {next(restless)}."

    answer = asked("When does the mill turn?", with_needles(100, []), Scripted(reply, window=2048))
    assert answer.trace is not None
    clarified = [step for step in answer.trace.walk() if step.name == "clarify"]
    assert 1 <= len(clarified) <= DEPTH
    assert sum(step.name == "step" for step in answer.trace.walk()) <= DEPTH * WIDTH


def test_a_spent_budget_gives_the_best_so_far() -> None:
    llm = Two(window=2048)
    llm.reply = llm.answered
    answer = asked(
        "Which man has the job?",
        with_needles(200, ["Jonas grinds rye."]),
        llm,
        Settings(budget=Budget(calls=8)),
    )
    assert "budget was spent" in answer.note


def tree(known: str | None = None, width: int = 2, depth: int = 2) -> Node:
    restless = iter(range(10_000))

    def reply(prompt: str) -> str:
        if "Reply with yes" in prompt:
            return "yes"
        if "Ask one" in prompt:
            return f"What is thing {next(restless)}?"
        return "It turns on day 3." if "thing 0" in prompt else "It turns on day 8."

    llm = Scripted(reply, window=2048)
    corpus = Corpus.from_texts({"text": with_needles(60, [])})
    return asyncio.run(grown("When does the mill turn?", corpus, llm, width=width, depth=depth, known=known))  # type: ignore[arg-type]


def test_the_whole_tree_has_all_its_nodes() -> None:
    root = tree(width=3, depth=2)
    nodes = list(root.walk())
    assert len(nodes) == 1 + 3 + 9
    assert all(len(node.path) == (0 if node is root else 1 if node.parent is root else 2) for node in nodes)


def test_worth_by_the_known_answer() -> None:
    assert closeness("It is 7.", "7") == pytest.approx(2 * 1 / 4 + 1)
    assert closeness("nothing", "7") == 0.0
    root = tree(known="day 3")
    best = max(below(root), key=lambda node: node.worth)
    assert "day 3" in best.answer and best.worth > 1 > min(node.worth for node in root.walk())


def test_rows_are_in_trls_formats() -> None:
    """`messages` for SFTTrainer, `prompt`/`chosen`/`rejected` conversations for DPOTrainer: both trainers have taken a
    step on such rows."""
    root = tree(known="day 3")
    row = sft_row("When does the mill turn?", "<para 0> text </para 0>", root)
    roles = [message["role"] for message in row["messages"]]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    pair = dpo_row("When does the mill turn?", "<para 0> text </para 0>", root)
    assert pair is not None
    for side in ("chosen", "rejected"):
        assert [message["role"] for message in pair[side]][:2] == ["assistant", "user"]
        assert pair[side][-1]["role"] == "assistant"
    assert "day 3" in pair["chosen"][-1]["content"] and "day 3" not in pair["rejected"][-1]["content"]
    assert pair["score_chosen"] > pair["score_rejected"]
    assert any("<para" in message["content"] for message in pair["chosen"])  # it points back


def test_trees_without_a_difference_give_no_pair_and_bare_roots_are_refused() -> None:
    assert dpo_row("When?", "text", tree(known="day 99", width=1, depth=1)) is None
    with pytest.raises(UsageError):
        sft_row("When?", "text", Node("When?", [], "", "", False))
