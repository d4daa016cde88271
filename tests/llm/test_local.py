"""The local model behind the protocol: equal to the engine, batched without a trace, cancelled at once."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import Future

import pytest
import torch
from tests.engine.conftest import tiny

from longspan.engine import Engine
from longspan.errors import LongspanError
from longspan.llm import LocalLLM, Scorer
from longspan.llm.protocol import Message
from longspan.models import encode


@pytest.fixture
def llm() -> LocalLLM:
    made = LocalLLM("tiny")
    engine: Future[Engine] = Future()
    engine.set_result(Engine(tiny("llama")))
    made._engine = engine
    return made


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def test_what_is_known_comes_from_the_model(llm: LocalLLM) -> None:
    loaded = llm.loaded
    assert (llm.window, llm.effective_window, llm.reader) == (loaded.window, loaded.effective_window, loaded.reader)
    assert llm.name == llm.tokenizer_name == "tiny"
    assert isinstance(llm, Scorer)


def test_greedy_chats_repeat_and_a_batch_changes_nothing(llm: LocalLLM) -> None:
    questions = ["Why?", "What is a mill?", "Who built the old mill by the river?", "And when?"]

    async def together() -> list[str]:
        done = await asyncio.gather(*(llm.chat(user(question), max_tokens=12) for question in questions))
        return [completion.text for completion in done]

    alone = [asyncio.run(llm.chat(user(question), max_tokens=12)).text for question in questions]
    assert asyncio.run(together()) == alone


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


def test_a_schema_is_enforced(llm: LocalLLM) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    completion = asyncio.run(llm.chat(user("Yes?"), max_tokens=40, schema=schema))
    assert isinstance(json.loads(completion.text)["a"], bool)


def test_cancelling_stops_the_generation(llm: LocalLLM) -> None:
    async def cancel() -> float:
        task = asyncio.create_task(llm.chat(user("Go on and on."), max_tokens=400))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        begin = time.perf_counter()
        await llm.chat(user("Why?"), max_tokens=1)  # the worker is free again
        return time.perf_counter() - begin

    assert asyncio.run(cancel()) < 2.0


def test_lone_surrogates_are_read_like_any_unknown_character(llm: LocalLLM) -> None:
    assert llm.count_tokens("bad \ud800 text") > 0
    asyncio.run(llm.chat(user("bad \ud800 text"), max_tokens=4))
    [scores] = asyncio.run(llm.loglikelihood([("a \ud800", " b")]))
    assert len(scores) == 2


def test_a_failure_in_the_worker_reaches_the_caller(llm: LocalLLM) -> None:
    with pytest.raises(LongspanError, match="window"):
        asyncio.run(llm.chat(user("why " * 5000), max_tokens=4))
    assert asyncio.run(llm.chat(user("Why?"), max_tokens=2)).text is not None


def test_a_wrong_name_is_one_sentence() -> None:
    wrong = LocalLLM("no-such-folder/model.gguf")
    with pytest.raises(LongspanError) as raised:
        asyncio.run(wrong.chat(user("Why?"), max_tokens=2))
    assert "\n" not in str(raised.value)
