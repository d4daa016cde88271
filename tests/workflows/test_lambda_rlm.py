"""λ-RLM: programs that fit together, a bound that is never exceeded, and the right answer from texts of any size."""

from __future__ import annotations

import asyncio
import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.corpus import Corpus
from longspan.errors import LongspanError, UsageError
from longspan.llm.simulated import Curve
from longspan.workflows import Answer, Budget, BudgetSpent, Settings, run
from longspan.workflows.atoms import Atoms
from longspan.workflows.combinators import (
    Chain,
    Concat,
    Cost,
    Cross,
    Filter,
    Fix,
    M,
    Map,
    Parse,
    Peek,
    Reduce,
    Self,
    Split,
    Term,
    bound,
)
from longspan.workflows.lambda_rlm import Accuracy, execute, frame_of, plan
from longspan.workflows.leaf import evidence

from .conftest import Scripted, hay, simulated, with_needles

FIND = Fix(60, M("find", 8), Split(3) >> Map(Self()) >> Reduce("best"))


def asked(question: str, text: str, llm: object, given: Settings | None = None) -> Answer:
    corpus = Corpus.from_texts({"text": text})
    return asyncio.run(run(question, corpus, llm, "lambda-rlm", given or Settings()))  # type: ignore[arg-type]


# -- programs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Split(2) >> Reduce("best"),
        lambda: Split(2) >> Split(2),
        lambda: M("find", 8) >> M("find", 8),
        lambda: Concat() >> Parse(),
        lambda: Filter(2) >> Concat(),
        lambda: Fix(60, M("find", 8), Split(2) >> Filter(1)),
        lambda: Fix(60, M("answer", 8, "Found"), Split(2) >> Map(Self()) >> Concat()),
    ],
)
def test_steps_that_do_not_fit_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError):
        asyncio.run(execute(make(), "Who?", Corpus.from_texts({"t": "It is."}), Scripted("x")))


def test_a_program_prints_as_it_is_written() -> None:
    assert eval(repr(FIND)) == FIND
    assert isinstance(Split(2) >> Map(M("find", 8)) >> Concat(), Chain)


def test_programs_that_would_not_end_are_refused() -> None:
    frame = frame_of(Scripted("x"), "Who?")
    for step in (Split(1) >> Map(Self()) >> Concat(), Self()):
        with pytest.raises(UsageError):
            bound(Fix(60, M("find", 8), step), 500, 8, frame)
    with pytest.raises(UsageError, match="outside of a Fix"):
        bound(Split(2) >> Map(Self()) >> Concat(), 500, 8, frame)
    with pytest.raises(UsageError, match="no chunks"):
        bound(Split(0) >> Map(M("find", 8)) >> Concat(), 500, 8, frame)
    with pytest.raises(UsageError, match="no prompt"):
        bound(M("nothing", 8), 50, 8, frame)


def test_the_bound_is_theorem_2s() -> None:
    """With even shares (no slack) and a τ that divides: k^d leaves, and as many levels as log_k(n/τ)."""
    frame = lambda m: 0  # noqa: E731
    for k, depth in ((2, 3), (3, 2), (4, 1), (5, 0)):
        program = Fix(10, M("find", 1), Split(k) >> Map(Self()) >> Reduce("best"))
        cost = bound(program, 10 * k**depth, 0, frame)
        assert cost == Cost(calls=k**depth, read=10 * k**depth, written=k**depth, depth=depth)
    neural = Fix(10, M("note", 2), Split(2) >> Map(Self()) >> Reduce(M("answer", 2, "Found")))
    cost = bound(neural, 40, 0, frame)
    assert cost.calls == 4 + 2 + 1  # (k^d - 1)/(k - 1) compositions
    assert cost.written == 2 * 7
    assert cost.read == 40 + 3 * 2 * 3  # each composition reads two values of 2 tokens and their seams


def test_the_accuracy_model_is_the_papers() -> None:
    model = Accuracy(a0=0.9, rho=0.5, window=100, compose=0.8)
    assert model.leaf(100) == pytest.approx(0.45)
    assert model.single(0, 2) == pytest.approx(0.9 * 0.64)
    assert model.worst(0, 3, 2) == pytest.approx(0.9**3 * 0.64)
    depths = [model.single(10, depth) for depth in range(5)]
    assert depths == sorted(depths, reverse=True)  # deeper is never better


# -- the bound holds ---------------------------------------------------------------------------------------------------


class Longest(Scripted):
    """Writes as much as it may, whatever it is asked, and counts what it reads."""

    def __init__(self, window: int) -> None:
        super().__init__(lambda prompt: "NOTE mill 7 " * 300, window=window, reader="generate")
        self.read = self.written = self.made = 0

    async def chat(self, messages, **limits):  # type: ignore[no-untyped-def]
        completion = await super().chat(messages, **limits)
        self.made += 1
        self.read += completion.usage.prompt_tokens
        self.written += completion.usage.completion_tokens
        return completion


programs = st.sampled_from(
    [
        FIND,
        Fix(50, M("note", 8), Split(2) >> Map(Self()) >> Reduce(M("answer", 8, "Found"))),
        Fix(70, M("list", 12), Split(4) >> Map(Self()) >> Reduce("merge")),
        Fix(70, M("count", 3), Split(5) >> Map(Self()) >> Reduce("sum")),
        Split(6) >> Filter(2, 1) >> Map(M("extract", 9)) >> Concat() >> M("answer", 9, "Found"),
        Split(3) >> Cross(("Who?", "Where is the mill?")) >> Filter(1) >> Map(M("find", 5)) >> Reduce("best"),
        Peek(40) >> M("find", 6),
        Fix(60, M("list", 5), Split(3) >> Map(Self()) >> Reduce("merge")) >> Parse() >> Cross() >> Concat(),
    ]
)


@settings(deadline=None, max_examples=60)
@given(programs, st.lists(st.integers(1, 40), max_size=30), st.integers(0, 3))
def test_no_program_costs_more_than_its_bound(program: Term, paragraphs: list[int], seed: int) -> None:
    text = "\n\n".join(" ".join(hay(size // 7 + 1, seed + size)) for size in paragraphs) or "Nothing."
    llm = Longest(window=3000)
    corpus = Corpus.from_texts({"text": text})
    atoms = Atoms.of(corpus, llm)
    question = "Where is the mill?"
    try:
        most = bound(program, atoms.whole.tokens, atoms.slack, frame_of(llm, question))
    except UsageError:
        return  # pieces larger than the leaves: told before anything is run
    asyncio.run(execute(program, question, corpus, llm))
    assert llm.made <= most.calls
    assert llm.read <= most.read
    assert llm.written <= most.written


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["search", "multi_hop", "aggregate", "pairwise", "classify", "summarise"]),
    st.integers(1, 3_000_000),
    st.integers(600, 20_000),
    st.integers(1, 100),
)
def test_every_plan_keeps_to_the_window_and_ends(task: str, tokens: int, window: int, slack: int) -> None:
    llm = Scripted("x", window=window)
    try:
        made = plan(task, "Where is the mill?", tokens, slack, llm)  # type: ignore[arg-type]
    except LongspanError:
        assert window < 1500  # nothing fits beside the prompt
        return
    assert made.k >= 2 and made.tau <= window
    assert made.bound.depth < 40
    assert bound(made.program, tokens, slack, frame_of(llm, "Where is the mill?")) == made.bound


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_is_kept_by_the_budget_too(seed: int) -> None:
    llm = Longest(window=900)
    answer = asked("List all mills.", with_needles(300, [], seed), llm)
    most = re.search(r"at most (\d+) calls, (\d+) tokens read and (\d+) written", answer.note)
    assert most is not None
    calls, read, written = map(int, most.groups())
    assert llm.made <= calls and llm.read <= read and llm.written <= written
    assert answer.usage.calls == llm.made


def test_a_program_beyond_the_budget_is_not_begun() -> None:
    llm = Longest(window=900)
    with pytest.raises(BudgetSpent, match="more than the budget"):
        asked("List all mills.", with_needles(300, []), llm, Settings(budget=Budget(calls=2)))
    assert llm.made == 0


# -- what it answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sentences", [40, 400, 4000])
def test_a_pass_key_is_found_and_cited_at_any_length(sentences: int) -> None:
    text = with_needles(sentences, ["The pass key is 48213."], sentences)
    answer = asked("What is the pass key?", text, simulated())
    assert "48213" in answer.text and not answer.refused
    assert any("48213" in citation.quote for citation in answer.citations)
    assert all(citation.quote == text[citation.start : citation.end] for citation in answer.citations)
    assert answer.usage.calls <= 9


def test_what_the_text_does_not_say_is_refused() -> None:
    answer = asked("What is the pass key?", with_needles(400, []), simulated())
    assert answer.refused and answer.text == "The text does not say."


def test_several_things_are_asked_for_apart() -> None:
    needles = ["The access code of the old mill is 1234567.", "The access code of the red barn is 7654321."]
    answer = asked(
        "What are the access codes of the old mill and the red barn?", with_needles(900, needles), simulated()
    )
    assert "1234567" in answer.text and "7654321" in answer.text
    assert len(answer.citations) >= 2


def test_a_chain_of_variables_is_followed() -> None:
    needles = ["LET KQX = 90210.", "LET ZWV = KQX.", "LET PLM = ZWV.", "LET BBB = 11111."]
    answer = asked("Which variables hold the value 90210?", with_needles(900, needles), simulated())
    assert all(name in answer.text for name in ("KQX", "ZWV", "PLM"))
    assert "BBB" not in answer.text


def test_counts_are_summed_by_the_program() -> None:
    text = with_needles(300, ["A tiger came."] * 7, 5)
    program = Fix(300, M("count", 12), Split(4) >> Map(Self()) >> Reduce("sum"))
    corpus = Corpus.from_texts({"text": text})
    answer = asyncio.run(execute(program, "How many times is the word tiger mentioned?", corpus, simulated()))
    assert answer.text == "7"
    worded = asyncio.run(execute(program, "How many tigers came?", corpus, Scripted("many")))
    assert "gave no number" in worded.note and worded.text == "0"


def test_items_are_merged_once_and_only_if_their_leaf_holds_them() -> None:
    text = "\n\n".join(f"{'The mill turns. ' * 12}\n\nItem {name} is sold." for name in ("rye", "oats", "rye", "spelt"))
    reply = lambda prompt: "\n".join(  # noqa: E731
        ["Unicorns", *(f"- Item {name} is sold" for name in ("rye", "oats", "spelt") if f"Item {name}" in prompt)]
    )
    program = Fix(80, M("list", 40), Split(4) >> Map(Self()) >> Reduce("merge"))
    answer = asyncio.run(execute(program, "List all items.", Corpus.from_texts({"t": text}), Scripted(reply)))
    assert sorted(re.findall(r"rye|oats|spelt|unicorn", answer.text)) == ["oats", "rye", "spelt"]
    assert "left out" in answer.note
    assert len(answer.citations) == 3


def test_a_reader_that_errs_with_length_is_right_over_small_leaves() -> None:
    """The simulated curve is 1 to 400 tokens and 0 from 900: alone it fails, over the program it does not."""
    curve = Curve(((400, 1.0), (900, 0.0)))
    text = with_needles(1200, ["The pass key is 48213."], 3)
    llm = simulated(window=8192, curve=curve)
    llm.profile = dataclasses.replace(llm.profile, effective_window=2048)
    assert "48213" in asked("What is the pass key?", text, llm).text
    corpus = Corpus.from_texts({"text": text[:30_000]})
    alone = asyncio.run(run("What is the pass key?", corpus, simulated(60_000, curve), "direct", Settings()))
    assert "48213" not in alone.text


def test_a_text_in_several_documents_is_one_text() -> None:
    parts = {f"{at}.txt": " ".join(hay(60, at)) for at in range(5)}
    parts["3.txt"] += " The pass key is 48213."
    answer = asyncio.run(run("What is the pass key?", Corpus.from_texts(parts), simulated(), "lambda-rlm", Settings()))
    assert "48213" in answer.text and answer.citations[0].document == "3.txt"


def test_a_question_too_long_for_the_window_is_said() -> None:
    llm = simulated(window=400)
    with pytest.raises(LongspanError):
        asked("What is the pass key " + "of the mill " * 60 + "?", with_needles(100, []), llm)


@pytest.mark.parametrize(
    ("answer", "carried"),
    [
        ("The number of digits may an octal escape in a string literal have.", False),
        ("Up to three digits.", True),
        ("An octal escape.", True),  # one of the things asked about
    ],
)
def test_the_question_said_again_is_no_answer(answer: str, carried: bool) -> None:
    llm = Scripted()
    atoms = Atoms.of(Corpus.from_texts({"a": "An octal escape in a string literal may have up to three digits."}), llm)
    question = "How many digits may an octal escape in a string literal have?"
    found = atoms.passages_of(atoms.whole)
    assert (evidence(answer, question, atoms.rarity(question), atoms.corpus, found) is not None) == carried
