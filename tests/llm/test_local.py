"""The local model behind the protocol: equal to the engine, batched without a trace, cancelled at once."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import Future
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.conftest import tiny

from longspan import trace
from longspan.engine import Engine
from longspan.errors import LongspanError
from longspan.llm import LLM, EndpointLLM, LocalLLM, Sampling, Scorer
from longspan.llm.protocol import Message
from longspan.models import encode
from longspan.workflows.budget import Budgeted


@pytest.fixture
def llm() -> LocalLLM:
    made = LocalLLM("tiny")
    engine: Future[Engine] = Future()
    engine.set_result(Engine(tiny("llama")))
    made._engine = engine
    return made


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def batches(llm: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many chats each step of the engine was for."""
    sizes: list[int] = []
    decode = llm.engine._decode

    def noted(rows: Any, *state: Any) -> None:
        sizes.append(len(rows))
        decode(rows, *state)

    monkeypatch.setattr(llm.engine, "_decode", noted)
    return sizes


@pytest.fixture(scope="module")
def smollm2() -> LocalLLM:
    return LocalLLM("smollm2")


def test_what_is_known_comes_from_the_model(llm: LocalLLM) -> None:
    loaded = llm.loaded
    assert (llm.window, llm.effective_window, llm.reader) == (loaded.window, loaded.effective_window, loaded.reader)
    assert llm.name == llm.tokenizer_name == "tiny"


def test_all_kinds_follow_the_protocol(llm: LocalLLM) -> None:
    endpoint = EndpointLLM("x", base_url="http://127.0.0.1:1/v1", window=4000)
    kinds: list[LLM] = [llm, endpoint, Budgeted(llm, 1000), Budgeted(endpoint, 1000)]  # checked by mypy
    for kind in kinds:
        assert kind.name and kind.tokenizer_name and kind.reader in ("extract", "generate")
        assert 0 < kind.effective_window <= kind.window
        assert kind.count_batch(["one", "two words", ""]) == [
            kind.count_tokens(text) for text in ("one", "two words", "")
        ]
        assert kind.count_batch([]) == []
    assert [isinstance(kind, Scorer) for kind in kinds] == [True, False, True, False]


QUESTIONS = ["Why?", "What is a mill?", "Who built the old mill by the river?", "And when?"]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, top_k=20, seed=5)])
def test_chats_repeat_and_a_batch_changes_nothing(sampling: Sampling, llm: LocalLLM, batches: list[int]) -> None:
    async def together() -> list[str]:
        chats = (llm.chat(user(question), max_tokens=12, sampling=sampling) for question in QUESTIONS)
        return [completion.text for completion in await asyncio.gather(*chats)]

    alone = [asyncio.run(llm.chat(user(question), max_tokens=12, sampling=sampling)).text for question in QUESTIONS]
    del batches[:]
    assert asyncio.run(together()) == alone
    assert max(batches) > 1


def test_the_embedded_model_repeats_itself(smollm2: LocalLLM) -> None:
    first, again = (asyncio.run(smollm2.chat(user("Name a colour."), max_tokens=6)) for _ in range(2))
    assert first.text == again.text != ""
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1


def test_chats_of_other_limits_share_a_batch(llm: LocalLLM, batches: list[int]) -> None:
    async def mixed() -> list[int]:
        chats = [llm.chat(user("Why?"), max_tokens=limit, stop=stop) for limit in (3, 5) for stop in ((), ("x",))]
        return [completion.usage.completion_tokens for completion in await asyncio.gather(*chats)]

    assert all(tokens <= limit for tokens, limit in zip(asyncio.run(mixed()), (3, 3, 5, 5), strict=True))
    assert max(batches) > 1


def test_a_chat_joins_those_under_way(llm: LocalLLM, batches: list[int]) -> None:
    async def one_after_the_other() -> list[str]:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()
        heard = lambda piece: loop.call_soon_threadsafe(begun.set)  # noqa: E731
        first = asyncio.create_task(llm.chat(user("Go on."), max_tokens=300, on_text=heard))
        await begun.wait()
        second = await llm.chat(user("Why?"), max_tokens=4)
        assert not first.done()
        return [(await first).text, second.text]

    together = asyncio.run(one_after_the_other())
    assert 2 in batches
    alone = [asyncio.run(llm.chat(user(text), max_tokens=n)).text for text, n in (("Go on.", 300), ("Why?", 4))]
    assert together == alone


def test_a_prompt_that_is_too_long_fails_alone(llm: LocalLLM) -> None:
    """Chats in a batch are strangers to each other."""

    async def together() -> list[Any]:
        chats = [llm.chat(user(text), max_tokens=8) for text in ("Why?", "Who?", "why " * 500, "When?")]
        return await asyncio.gather(*chats, return_exceptions=True)

    first, second, failed, last = asyncio.run(together())
    assert isinstance(failed, LongspanError)
    for text, completion in (("Why?", first), ("Who?", second), ("When?", last)):
        assert completion.text == asyncio.run(llm.chat(user(text), max_tokens=8)).text


def test_usage_is_counted_and_text_is_streamed(llm: LocalLLM) -> None:
    heard: list[str] = []
    completion = asyncio.run(llm.chat(user("What is a mill?"), max_tokens=8, on_text=heard.append))
    assert "".join(heard) == completion.text
    usage = completion.usage
    assert usage.calls == 1
    assert usage.prompt_tokens > 10
    assert 1 <= usage.completion_tokens <= 8
    assert usage.seconds > 0
    assert completion.finish_reason in ("stop", "length")


def test_scores_are_the_log_softmax_of_the_model(llm: LocalLLM) -> None:
    pairs = [("The mill", " turns."), ("Q:", " Why?"), ("A longer context about grain and flour", " is here")]
    scores = asyncio.run(llm.loglikelihood(pairs))
    for (context, continuation), found in zip(pairs, scores, strict=True):
        left, right = encode(context, llm.loaded), encode(continuation, llm.loaded)
        with torch.inference_mode():
            logits = llm.loaded.model(torch.tensor([[*left, *right]])).logits[0].double().log_softmax(-1)
        wanted = [float(logits[len(left) + i - 1, token]) for i, token in enumerate(right)]
        assert found == pytest.approx(wanted, abs=1e-3)


def test_scoring_says_what_it_cannot_score(llm: LocalLLM) -> None:
    for pair, message in ((("", "x"), "empty"), (("x " * 600, "y"), "window")):
        with pytest.raises(LongspanError, match=message):
            asyncio.run(llm.loglikelihood([pair]))
    assert asyncio.run(llm.loglikelihood([])) == []
    assert asyncio.run(llm.loglikelihood([("x", "")])) == [()]


SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["a", "n"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"enum": ["cat", "dog"]}, "minItems": 1, "maxItems": 3},
    {"type": "string", "maxLength": 6},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=["object", "array", "string"])
def test_a_schema_is_enforced(schema: dict[str, Any], llm: LocalLLM) -> None:
    async def several() -> list[str]:
        chats = [
            llm.chat(user("Yes?"), max_tokens=80, schema=schema, sampling=Sampling(temperature=1.5, seed=seed))
            for seed in range(5)
        ]
        return [completion.text for completion in await asyncio.gather(*chats)]

    for text in asyncio.run(several()):
        jsonschema.validate(json.loads(text), schema)


def test_a_schema_that_makes_no_sense(llm: LocalLLM) -> None:
    with pytest.raises(LongspanError, match="schema cannot be enforced") as raised:
        asyncio.run(llm.chat(user("Yes?"), max_tokens=8, schema={"type": "nonsense"}))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("chats", [1, 4])
def test_cancelling_stops_the_generation(chats: int, llm: LocalLLM) -> None:
    heard: list[str] = []
    started = threading.Event()

    def listen(piece: str) -> None:
        heard.append(piece)
        started.set()

    async def ask(cancel: bool) -> int:
        """The pieces that were made, in the end."""
        del heard[:]
        started.clear()
        tasks = [
            asyncio.create_task(llm.chat(user(f"Go on {n}."), max_tokens=400, on_text=listen)) for n in range(chats)
        ]
        await asyncio.to_thread(started.wait, 10)
        if cancel:
            for task in tasks:
                task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) == cancel for one in done)
        await llm.chat(user("Why?"), max_tokens=1)  # the worker is free again
        return len(heard)

    whole = asyncio.run(ask(cancel=False))
    assert asyncio.run(ask(cancel=True)) < whole / 2


def test_who_is_cancelled_leaves_the_others_their_answers(llm: LocalLLM) -> None:
    started = threading.Event()

    async def cancel_one() -> list[Any]:
        tasks = [
            asyncio.create_task(llm.chat(user(question), max_tokens=60, on_text=lambda piece: started.set()))
            for question in QUESTIONS
        ]
        await asyncio.to_thread(started.wait, 10)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    done = asyncio.run(cancel_one())
    assert isinstance(done.pop(1), asyncio.CancelledError)
    kept = [question for question in QUESTIONS if question != QUESTIONS[1]]
    assert [one.text for one in done] == [asyncio.run(llm.chat(user(q), max_tokens=60)).text for q in kept]


def test_who_is_cancelled_while_waiting_is_never_begun(llm: LocalLLM, batches: list[int]) -> None:
    async def cancel_waiting() -> None:
        busy = threading.Event()
        llm._worker.submit(busy.wait, 10)
        task = asyncio.create_task(llm.chat(user("Why?"), max_tokens=5))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        busy.set()

    asyncio.run(cancel_waiting())
    llm._worker.submit(lambda: None).result()
    assert batches == []


@given(
    st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "system", "\n", " the mill", "é", "\ud800"]), max_size=9)
)
def test_texts_are_counted_as_they_are_encoded(smollm2: LocalLLM, parts: list[str]) -> None:
    """What spells a control token is ordinary text, and takes as many tokens."""
    text = "".join(parts)
    assert smollm2.count_tokens(text) == len(encode(text, smollm2.loaded))


def test_calls_are_spans_with_their_usage(llm: LocalLLM) -> None:
    with trace.span("run") as run:
        completion = asyncio.run(llm.chat(user("Why?"), max_tokens=4))
        asyncio.run(llm.loglikelihood([("a", "b")]))
    chat, score = run.children
    assert (chat.kind, chat.output, chat.usage) == ("llm", completion.text, completion.usage)
    assert score.usage.calls == 1
    assert run.total().calls == 2


def test_lone_surrogates_are_read_like_any_unknown_character(llm: LocalLLM) -> None:
    assert llm.count_tokens("bad \ud800 text") > 0
    asyncio.run(llm.chat(user("bad \ud800 text"), max_tokens=4))
    [scores] = asyncio.run(llm.loglikelihood([("a \ud800", " b")]))
    assert len(scores) == 2


@pytest.mark.parametrize("error", [RuntimeError("broken"), LongspanError("told"), MemoryError()])
def test_a_failure_in_the_worker_reaches_the_caller(
    error: Exception, llm: LocalLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    async def two() -> list[Any]:
        return await asyncio.gather(*(llm.chat(user("Why?"), max_tokens=4) for _ in range(2)), return_exceptions=True)

    with monkeypatch.context() as patched:
        patched.setattr(llm.engine, "serve", fail)
        assert asyncio.run(two()) == [error, error]
        patched.setattr(llm.engine, "loglikelihood", fail)
        with pytest.raises(type(error)):
            asyncio.run(llm.loglikelihood([("a", "b")]))
    assert asyncio.run(llm.chat(user("Why?"), max_tokens=2)).text is not None


def test_a_listener_that_fails_is_heard_of(llm: LocalLLM) -> None:
    def listen(piece: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        asyncio.run(llm.chat(user("Why?"), max_tokens=8, on_text=listen))

    async def beside() -> list[Any]:
        chats = [llm.chat(user("Why?"), max_tokens=8, on_text=heard) for heard in (listen, None)]
        return await asyncio.gather(*chats, return_exceptions=True)

    broken, whole = asyncio.run(beside())
    assert isinstance(broken, BrokenPipeError)
    assert whole.text == asyncio.run(llm.chat(user("Why?"), max_tokens=8)).text


def test_what_does_not_fit_is_said(llm: LocalLLM) -> None:
    for text, limit, message in (("why " * 5000, 4, "window"), ("Why?", 0, "At least one token")):
        with pytest.raises(LongspanError, match=message):
            asyncio.run(llm.chat(user(text), max_tokens=limit))


def test_a_wrong_name_is_one_sentence_each_time() -> None:
    wrong = LocalLLM("no-such-folder/model.gguf")
    wrong.warm()
    for _ in range(2):
        with pytest.raises(LongspanError, match=r"There is no file no-such-folder/model\.gguf") as raised:
            asyncio.run(wrong.chat(user("Why?"), max_tokens=2))
        assert "\n" not in str(raised.value)


def test_tokens_begin_where_they_do_in_the_whole_text() -> None:
    from pydoc_data.topics import topics

    llm = LocalLLM("smollm2")
    for text in ("", "x", "\n".join(topics.values())[:60_000], "word " * 9_000, "x" * 20_000 + " y"):
        encoding = llm._counter.encode(text, add_special_tokens=False)
        assert llm.token_starts(text) == [start for start, _ in encoding.offsets]
