"""What every run has: bounds that hold, a journal, steps at once, answers of a shape, a replay from the trace."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from longspan import trace as traces
from longspan.corpus import Corpus
from longspan.errors import LongspanError, UsageError
from longspan.llm import Completion, Message, OffSchema, Prices, Sampling
from longspan.trace import Usage, span
from longspan.workflows import Answer, Budget, Budgeted, BudgetSpent, Settings, replay, run
from longspan.workflows.journal import Journal, Journalled
from longspan.workflows.parallel import parallel
from longspan.workflows.structured import structured

from .conftest import MANUAL, HashingEncoder, Scripted, ScriptedScorer

ASK: list[Message] = [{"role": "user", "content": "why is it so"}]


# -- budget ------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 6), st.integers(0, 900), st.floats(0, 2), st.lists(st.integers(1, 100), max_size=12))
def test_no_bound_is_exceeded(calls: int, tokens: int, cost: float, limits: list[int]) -> None:
    llm = Scripted("word " * 40)
    llm.prices = Prices(2000.0, 8000.0)  # type: ignore[attr-defined]
    bound = Budgeted(llm, Budget(calls=calls, tokens=tokens, cost=cost))
    spent = Usage(cost=0.0)

    async def all_at_once() -> None:
        nonlocal spent
        tasks = [bound.chat(ASK, max_tokens=limit) for limit in limits]
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(done, BaseException):
                assert isinstance(done, BudgetSpent)
            else:
                spent += done.usage

    asyncio.run(all_at_once())
    assert spent.calls <= calls
    assert spent.prompt_tokens + spent.completion_tokens <= tokens
    assert llm.prices.of(spent) <= cost + 1e-9  # type: ignore[attr-defined]
    assert bound.refused + spent.calls == len(limits)


class Slow(Scripted):
    """Takes its time, and says when it was stopped."""

    stopped = 0

    async def chat(self, messages: Sequence[Message], **keywords: Any) -> Completion:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        return await super().chat(messages, **keywords)


def test_calls_under_way_end_at_the_deadline_and_none_begins_after_it() -> None:
    async def late() -> tuple[Slow, float]:
        llm = Slow("so")
        bound, begin = Budgeted(llm, Budget(seconds=0.2)), time.monotonic()
        for _ in range(2):
            with pytest.raises(BudgetSpent, match=r"0\.2 s"):
                await bound.chat(ASK, max_tokens=4)
        return llm, time.monotonic() - begin

    llm, seconds = asyncio.run(late())
    assert (llm.stopped, llm.prompts) == (1, [])
    assert 0.2 <= seconds < 1.0


def test_a_workflow_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    async def endless(*_: object) -> Answer:
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr("longspan.workflows.GRACE", 0.1)
    monkeypatch.setattr("longspan.workflows.find", lambda *_: endless)
    settings.budget = Budget(seconds=0.1)
    with pytest.raises(BudgetSpent, match="before there was an answer"):
        asyncio.run(run("Why?", Corpus.from_texts({"a": "text"}), Scripted(), "endless", settings))


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("20000", Budget(tokens=20000)),
        ("tokens=20000", Budget(tokens=20000)),
        ("calls=5,seconds=1.5,cost=0.25", Budget(calls=5, seconds=1.5, cost=0.25)),
        ("calls=0", Budget(calls=0)),
    ],
)
def test_a_budget_is_spelled(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "many", "calls=-1", "words=5", "calls=1,calls=2", "cost=nan", "seconds=inf"])
def test_what_is_no_budget_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="is no budget"):
        Budget.parse(text)


def test_a_cost_needs_prices() -> None:
    with pytest.raises(UsageError, match="--prices"):
        Budgeted(Scripted(), Budget(cost=1.0))


# -- journal -----------------------------------------------------------------------------------------------------------


def test_equal_calls_are_kept_apart_and_others_are_asked() -> None:
    answers = iter(["one", "two", "three", "four"])
    llm = Scripted(lambda _: next(answers))

    async def twice() -> list[str]:
        first, again = Journalled(llm, Journal("q")), Journalled(llm, Journal("q"))
        said = [(await first.chat(ASK, max_tokens=9)).text for _ in range(2)]
        again = Journalled(llm, Journal("q"))
        said += [(await again.chat(ASK, max_tokens=9)).text for _ in range(3)]
        said += [(await again.chat(ASK, max_tokens=8)).text]  # another parameter: another call
        return said

    assert asyncio.run(twice()) == ["one", "two", "one", "two", "three", "four"]


def test_a_run_that_was_killed_goes_on_without_paying_again(tmp_path: Path) -> None:
    """kill -9 in the middle of the fifth call; the second run makes only the calls that the first did not finish."""
    code = textwrap.dedent(
        """
        import asyncio, os, signal, sys
        sys.path.insert(0, sys.argv[1])
        from tests.workflows.conftest import Scripted
        from tests.workflows.test_map_reduce import COUNTRY, mayors
        from longspan.corpus import Corpus
        from longspan.workflows import run
        count = 0
        def reply(prompt):
            global count
            count += 1
            if sys.argv[2] == "dies" and count == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return mayors(prompt)
        llm = Scripted(reply, window=1500)
        answer = asyncio.run(run("List all mayors.", Corpus.from_texts({"c": COUNTRY}), llm, "map-reduce"))
        print(count, answer.usage.calls, len(answer.citations))
        """
    )

    def ran(how: str) -> subprocess.CompletedProcess[str]:
        root = str(Path(__file__).parents[2])
        arguments = [sys.executable, "-c", code, root, how]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)

    assert ran("dies").returncode == -9
    resumed = ran("lives").stdout.split()
    fresh = ran("lives").stdout.split()  # the journal is dropped once the run is complete
    assert int(resumed[0]) == int(resumed[1]) == int(fresh[0]) - 4
    assert resumed[2] == fresh[2] == "10"


# -- several at once ---------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 5))
def test_as_many_steps_at_once_as_allowed_and_results_in_order(items: list[int], limit: int) -> None:
    running = most = 0

    async def step(item: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(item):
            await asyncio.sleep(0)
        running -= 1
        return item * 10

    assert asyncio.run(parallel(step, items, limit)) == [item * 10 for item in items]
    assert most <= limit


def test_the_first_failure_ends_the_others() -> None:
    begun: list[int] = []
    cancelled: list[int] = []

    async def step(item: int) -> None:
        begun.append(item)
        if item == 1:
            raise LongspanError("no")
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    with pytest.raises(LongspanError, match="no"):
        asyncio.run(parallel(step, list(range(100)), 3))
    assert begun == [0, 1, 2] and sorted(cancelled) == [0, 2]


def test_ten_thousand_calls_take_less_than_a_millisecond_each(settings: Settings) -> None:
    llm = Scripted("so")
    bound = Journalled(Budgeted(llm, Budget(calls=10_000)), Journal("many"))

    async def all_of_them() -> float:
        begin = time.process_time()
        with span("root"):
            await parallel(lambda n: bound.chat([{"role": "user", "content": f"{n}"}], max_tokens=4), range(10_000))
        return time.process_time() - begin

    assert asyncio.run(all_of_them()) < 10.0


# -- answers of a shape ------------------------------------------------------------------------------------------------


class Village(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    mills: int


@pytest.mark.parametrize(
    ("replies", "found"),
    [
        (['{"name": "Elm", "mills": 3}'], Village(name="Elm", mills=3)),
        (['Here it is:\n```json\n{"name": "Elm", "mills": 3}\n```'], Village(name="Elm", mills=3)),
        (["Elm has three mills.", '{"name": "Elm", "mills": 3}'], Village(name="Elm", mills=3)),
        (['{"name": "Elm"}', '{"name": "Elm", "mills": "many"}'], None),
        (["", "{" * 1000], None),
    ],
)
def test_an_answer_is_parsed_repaired_once_or_counted_as_a_failure(replies: list[str], found: Village | None) -> None:
    left = iter(replies)
    llm = Scripted(lambda _: next(left))
    with span("root") as root:
        assert asyncio.run(structured(llm, ASK, Village, max_tokens=2000)) == found
    assert len(llm.prompts) == len(replies)
    assert sum(step.name == "unparsed" for step in root.walk()) == (found is None)
    if len(replies) > 1:
        assert "JSON schema" in llm.prompts[1] and '"mills"' in llm.prompts[1]


def test_a_server_that_does_not_follow_schemas_is_asked_to_repair() -> None:
    class Off(Scripted):
        async def chat(self, messages: Sequence[Message], **keywords: Any) -> Completion:
            if len(messages) == 1:
                raise OffSchema("It wrote prose.", Completion("Elm, 3 mills", Usage(1, 5, 4), "stop"))
            return await super().chat(messages, **keywords)

    llm = Budgeted(Off('{"name": "Elm", "mills": 3}'), Budget(tokens=2000))
    assert asyncio.run(structured(llm, ASK, Village, max_tokens=50)) == Village(name="Elm", mills=3)
    assert llm.spent.completion_tokens == 4 + 4


# -- replay ------------------------------------------------------------------------------------------------------------


def recorded(question: str, llm: Scripted, workflow: str, settings: Settings, file: Path) -> Answer:
    answer = asyncio.run(run(question, Corpus.from_texts({"manual": MANUAL}), llm, workflow, settings))
    assert answer.trace is not None
    traces.save(answer.trace, file)
    return answer


class Counter(Scripted):
    """Has a tokenizer and must not be asked anything."""

    async def chat(self, *_: Any, **__: Any) -> Completion:
        raise AssertionError("a replay makes no calls")

    async def loglikelihood(self, *_: Any) -> Any:
        raise AssertionError("a replay makes no calls")


Make = Callable[[], Scripted]


@pytest.mark.parametrize(
    ("make", "workflow", "question", "budget"),
    [
        (lambda: Scripted("It lasts 36 months [1]."), "direct", "How long is the warranty?", None),
        (lambda: Scripted("It lasts 36 months [1]."), "auto", "How long is the warranty?", None),
        (lambda: Scripted("- wheat\n- rye", window=600), "map-reduce", "List all grains.", None),
        (lambda: Scripted("NONE", window=400), "map-reduce", "List all grains.", Budget(calls=1)),
        (ScriptedScorer, "retrieve", "How long is the warranty?", None),
        (ScriptedScorer, "retrieve", "How long is the warranty?", Budget(tokens=5)),
    ],
)
def test_a_replay_gives_the_same_answer_without_a_call(
    make: Make, workflow: str, question: str, budget: Budget | None, settings: Settings, tmp_path: Path
) -> None:
    settings.budget, settings.max_tokens = budget, 40
    answer = recorded(question, make(), workflow, settings, tmp_path / "run.json")
    plain = Settings(encoder=HashingEncoder())  # type: ignore[arg-type]
    said: list[str] = []
    plain.on_text = said.append
    root = traces.load(tmp_path / "run.json")
    again = asyncio.run(replay(root, Corpus.from_texts({"manual": MANUAL}), Counter(), plain))
    unpaid = {**again.to_dict(), "usage": answer.usage.to_dict()}
    assert unpaid == answer.to_dict()
    assert again.usage.calls == again.usage.prompt_tokens == 0
    assert not said or "".join(said).strip() == answer.text.strip()


def test_a_replay_of_other_texts_or_of_another_version_is_refused(settings: Settings, tmp_path: Path) -> None:
    recorded("How long is it?", Scripted("36 months [1]."), "direct", settings, tmp_path / "run.json")
    root = traces.load(tmp_path / "run.json")
    with pytest.raises(LongspanError, match="same texts"):
        asyncio.run(replay(root, Corpus.from_texts({"manual": MANUAL + "!"}), Counter(), settings))
    for step in root.walk():
        step.attributes.pop("key", None)
    with pytest.raises(LongspanError, match="does not hold"):
        asyncio.run(replay(root, Corpus.from_texts({"manual": MANUAL}), Counter(), settings))
    root.attributes = {}
    with pytest.raises(LongspanError, match="older version"):
        asyncio.run(replay(root, Corpus.from_texts({"manual": MANUAL}), Counter(), settings))


def test_two_calls_that_differ_have_two_keys() -> None:
    from longspan.llm import Call

    calls = [
        Call.of(ASK, 5),
        Call.of(ASK, 6),
        Call.of([*ASK, *ASK], 5),
        Call.of(ASK, 5, Sampling(temperature=0.5)),
        Call.of(ASK, 5, Sampling(seed=1)),
        Call.of(ASK, 5, stop=["x"]),
        Call.of(ASK, 5, schema={"type": "object"}),
        Call.of([{"role": "user", "content": "why \ud800"}], 5),
    ]
    assert len({call.key("a") for call in calls} | {call.key("b") for call in calls}) == 2 * len(calls)
    assert all(re.fullmatch("[0-9a-f]{32}", call.key("a")) for call in calls)
