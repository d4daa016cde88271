"""The small parts: budget, journal, the question's kind, the choice of a workflow, words, support."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.corpus import Corpus, Passage, passages
from longspan.registry import parts as registered
from longspan.workflows import Budgeted, BudgetSpent, Settings
from longspan.workflows.auto import choose, explain
from longspan.workflows.journal import Journal
from longspan.workflows.passages import everything, join_neighbours, pack
from longspan.workflows.question import kind_of, lacks_number, parts, standalone
from longspan.workflows.support import support
from longspan.workflows.words import content_words, coverage, stems

from .conftest import MANUAL, Scripted, ScriptedScorer


@given(st.integers(0, 2000), st.lists(st.tuples(st.integers(1, 200), st.integers(1, 100)), max_size=20))
def test_a_budget_is_never_exceeded(budget: int, calls: list[tuple[int, int]]) -> None:
    llm = Scripted("word " * 50)
    bound = Budgeted(llm, budget)
    spent = 0

    async def all_at_once() -> None:
        nonlocal spent
        tasks = [bound.chat([{"role": "user", "content": "why " * words}], max_tokens=limit) for words, limit in calls]
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(done, BaseException):
                assert isinstance(done, BudgetSpent)
            else:
                spent += done.usage.prompt_tokens + done.usage.completion_tokens

    asyncio.run(all_at_once())
    assert spent <= budget


def test_scoring_counts_against_the_budget() -> None:
    bound = Budgeted(ScriptedScorer(), 10)
    asyncio.run(bound.loglikelihood([("one two three", " four")]))
    with pytest.raises(BudgetSpent, match=r"budget of 10 tokens has \d+ left"):
        asyncio.run(bound.loglikelihood([("one two three four five six", " seven eight")]))


def test_a_budget_over_a_model_that_cannot_score_cannot_score() -> None:
    assert not hasattr(Budgeted(Scripted(), 10), "loglikelihood")


def test_a_journal_keeps_finished_steps_and_ignores_a_cut_line() -> None:
    journal = Journal("question", "model")
    key = "part 1"
    journal.put(key, "found \ud800 this")
    with journal.path.open("a") as file:
        file.write('{"key": "abc", "val')
    again = Journal("question", "model")
    assert again.get(key) == "found \ud800 this"
    assert again.get("abc") is None
    again.put("next", [1])
    assert Journal("question", "other").get(key) is None
    again.drop()
    assert Journal("question", "model").get(key) is None


def test_a_journal_on_a_full_disk_does_not_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    journal = Journal("question")
    monkeypatch.setattr(Path, "open", full)
    journal.put("step", "value")
    assert journal.get("step") == "value"


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("How many characters may a name have?", "fact"),
        ("Which port does it use?", "fact"),
        ("How many times is yield mentioned?", "count"),
        ("Count all villages.", "count"),
        ("How many exceptions are described in this text?", "count"),
        ("List all exceptions.", "list"),
        ("Name every mayor.", "list"),
        ("Find all the dates", "list"),
        ("Summarise it.", "summary"),
        ("What are the main points?", "summary"),
        ("What is this book about?", "summary"),
        ("Give an overview of chapter 3", "summary"),
        ("What is the difference between the mill and the barn?", "compare"),
        ("How do oats differ from rye?", "compare"),
        ("In which town was the man born who built the mill that burned?", "multi-hop"),
        ("What is the option that disables colours?", "fact"),
        ("Which variables hold the value 12345?", "fact"),
    ],
)
def test_the_kind_of_a_question(question: str, kind: str) -> None:
    assert kind_of(question) == kind


def test_a_follow_up_takes_the_words_of_the_question_before() -> None:
    assert standalone("And why?", "Who built it in 1987?") == "And why? (Who built it in 1987?)"
    assert standalone("How long does it last?", "What is the warranty?").endswith("(What is the warranty?)")
    assert standalone("Which grain may be milled?", "What is the warranty?") == "Which grain may be milled?"
    assert standalone("And why?", "") == "And why?"


@pytest.mark.parametrize("reader", ["extract", "generate"])
def test_every_workflow_is_explained_and_the_taken_one_is_first(reader: str) -> None:
    corpus = Corpus.from_texts({"a": "The mill turns. " * 9000})
    for question in ("Where is the mill?", "List all mills.", "Summarise the text."):
        llm = Scripted(window=4096, reader=reader)
        ways = explain(question, corpus, llm, Settings())
        ours = [part for part in registered("workflow") if part.target.__module__.startswith("longspan.")]
        assert {way.name for way in ways} == {part.slug for part in ours} - {"auto"}
        assert (ways[0].name, ways[0].why) == choose(question, corpus, llm, Settings())
        assert all(way.why for way in ways) and not llm.prompts
        bound = next(way for way in ways if way.name == "lambda-rlm")
        assert bound.calls and bound.tokens


def test_what_is_asked_for() -> None:
    assert parts("Where do the scripts go, and which package do they need?") == [
        "Where do the scripts go?",
        "which package do they need?",
    ]
    assert parts("I bake bread. When is it done? And at what heat?") == [
        "I bake bread. When is it done?",
        "And at what heat?",
    ]
    for one in ("What do mills and barns have in common?", "Who built it and left?", "Mills", "", "Where? "):
        assert parts(one) == [one]


@pytest.mark.parametrize(
    ("question", "tokens", "reader", "budget", "workflow"),
    [
        ("How long?", 100, "generate", None, "direct"),
        ("How long?", 20_000, "generate", None, "retrieve"),
        ("List all dates.", 20_000, "generate", None, "map-reduce"),
        ("List all dates.", 20_000, "generate", 5_000, "retrieve"),
        ("List all dates.", 100, "generate", None, "direct"),
        ("How long?", 100, "extract", None, "retrieve"),
        ("Summarise it.", 20_000, "extract", None, "map-reduce"),
        ("In which town was the man born who built the mill that burned?", 20_000, "generate", None, "extagents"),
        ("In which town was the man born who built the mill that burned?", 20_000, "generate", 5_000, "retrieve"),
        ("In which town was the man born who built the mill that burned?", 20_000, "extract", None, "retrieve"),
        ("What is the difference between oats and rye?", 20_000, "generate", None, "retrieve"),
    ],
)
def test_auto_chooses_and_says_why(
    question: str, tokens: int, reader: str, budget: int | None, workflow: str, settings: Settings
) -> None:
    settings.budget = budget
    corpus = Corpus.from_texts({"text": "abc " * tokens})
    name, why = choose(question, corpus, Scripted(reader=reader), settings)
    assert name == workflow
    assert why
    assert "\n" not in why


def test_content_words_and_coverage() -> None:
    assert content_words("How long does the warranty of the mill last?") == ["long", "warranty", "mill", "last"]
    assert content_words("Who is it?") == ["who", "is", "it"]
    assert stems("Running mills") == ["run", "mill"]
    assert coverage({"run": 1.0, "mill": 3.0}, ["mill"]) == 0.75
    assert coverage({}, ["mill"]) == 0.0


def test_support_finds_the_unit_that_carries_a_claim() -> None:
    corpus = Corpus.from_texts({"manual": MANUAL})
    found = everything(corpus, lambda texts: [len(text.split()) for text in texts], 512)
    unit, share = support("The warranty is 36 months from purchase", corpus, list(found)) or (None, 0.0)
    assert unit is not None
    assert unit.text == "The warranty lasts 36 months from the day of purchase."
    assert share > 0.7
    assert support("the of and", corpus, []) is None


def count(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


@given(st.integers(8, 400))
def test_everything_is_read_once_within_the_budget(budget: int) -> None:
    corpus = Corpus.from_texts({"manual": MANUAL, "other": MANUAL[::-1]})
    parts = list(everything(corpus, count, budget))
    for document in corpus.documents():
        inside = [part for part in parts if part.document == document.id]
        assert all(a.end <= b.start for a, b in pairwise(inside))
        read = "".join(document.text[part.start : part.end] for part in inside)
        assert "".join(read.split()) == "".join(document.text.split())


def test_neighbours_are_joined_and_strangers_are_not() -> None:
    corpus = Corpus.from_texts({"manual": MANUAL})
    document = next(iter(corpus.documents()))
    found = list(passages(document, count, 24))
    assert len(found) > 4
    joined = join_neighbours(corpus, [found[3], found[0], found[1]])
    assert [(part.start, part.end) for part in joined] == [
        (found[3].start, found[3].end),
        (found[0].start, found[1].end),
    ]


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(0, 200))
def test_packing_keeps_the_order_and_the_budget(sizes: list[int], budget: int) -> None:
    ranking = [Passage("d", n, n + 1, 1, 1, size) for n, size in enumerate(sizes)]
    chosen = pack(ranking, sizes, budget)
    assert sum(passage.tokens for passage in chosen) <= budget
    assert [p.start for p in chosen] == sorted(p.start for p in chosen)
    assert not sizes or sizes[0] > budget or chosen[0] is ranking[0]


@pytest.mark.parametrize(
    ("question", "text", "lacks"),
    [
        ("How many mills are there?", "The three old mills grind.", False),
        ("How many mills are there?", "The mills grind, and the wall of the town in the valley is 3 m high.", True),
        ("How many big mills has it?", "Its mills: 40.", False),
        ("In which year was it built?", "It was built in 1847.", False),
        ("In which year was it built?", "It was built by 12 men.", True),
        ("In what version was it added?", "Added in 3.7.", False),
        ("In what version was it added?", "Of 12 it is one.", True),
        ("What is the default size?", "The size is twelve.", False),
        ("What is the default size?", "The size is small.", True),
        ("Who may upload?", "Members.", False),
    ],
)
def test_a_number_that_is_asked_for_and_absent(question: str, text: str, lacks: bool) -> None:
    assert lacks_number(question, text) == lacks
