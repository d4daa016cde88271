"""Endpoints: streams, counts and costs, and one sentence for each way in which a server can fail."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
from fastapi.responses import HTMLResponse, Response
from hypothesis import given
from hypothesis import strategies as st

from longspan.errors import LongspanError, UsageError
from longspan.llm import Completion, EndpointLLM, Prices, Sampling, open_llm
from longspan.llm import endpoint as module

from .conftest import Reply, Server, chunks, failure

USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 5,
    "total_tokens": 105,
    "prompt_tokens_details": {"cached_tokens": 40},
}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's backoff begins at half a second: long for a test."""
    import openai._base_client as client

    monkeypatch.setattr(client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(client, "MAX_RETRY_DELAY", 0.02)


def said(server: Server, **options: Any) -> Completion:
    llm = EndpointLLM("fake", base_url=server.url, prices=options.pop("prices", None))
    return chatted(llm, **options)


def chatted(llm: EndpointLLM, content: str = "Why?", **options: Any) -> Completion:
    return asyncio.run(llm.chat([{"role": "user", "content": content}], max_tokens=20, **options))


def test_a_streamed_answer_with_its_counts_and_its_cost(server: Server) -> None:
    server.answer(chunks("The mill turns.", usage=USAGE))
    heard: list[str] = []
    completion = said(server, on_text=heard.append, prices=Prices(1.0, 4.0, 0.1))
    assert completion.text == "".join(heard) == "The mill turns."
    assert len(heard) == 3
    usage = completion.usage
    assert (usage.calls, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (1, 100, 40, 5)
    assert usage.cost == pytest.approx((60 * 1.0 + 40 * 0.1 + 5 * 4.0) / 1e6)
    assert usage.seconds > 0
    [body] = server.requests
    assert body["messages"] == [{"role": "user", "content": "Why?"}]
    assert (body["model"], body["max_tokens"], body["stream"], body["temperature"]) == ("fake", 20, True, 0.0)
    assert server.headers[0]["authorization"] == "Bearer sk-very-secret"


def test_a_server_that_does_not_count_is_estimated(server: Server) -> None:
    server.answer(chunks("One two three."))
    usage = said(server).usage
    assert usage.prompt_tokens == EndpointLLM("x").count_tokens("Why?")
    assert usage.completion_tokens > 0
    assert usage.cost is None


def test_length_is_told_from_stop(server: Server) -> None:
    server.answer(chunks("One two", reason="length"))
    assert said(server).finish_reason == "length"


def test_sampling_and_stop_are_passed_on_where_set(server: Server) -> None:
    server.answer(chunks("x"))
    said(server, sampling=Sampling(temperature=0.7, top_p=0.9, top_k=5, min_p=0.1, seed=3), stop=["END"])
    body = server.requests[0]
    assert body["temperature"] == 0.7
    assert (body["top_p"], body["top_k"], body["min_p"], body["seed"]) == (0.9, 5, 0.1, 3)
    assert body["stop"] == ["END"]
    said(server)
    assert not {"top_p", "top_k", "min_p", "seed", "stop"} & set(server.requests[1])


def test_a_schema_is_passed_on_and_its_answer_checked(server: Server) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    server.answer(chunks('{"a": 1}'))
    assert said(server, schema=schema).text == '{"a": 1}'
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == schema
    server.answer(chunks("Here you are: 1"))
    with pytest.raises(LongspanError, match="asked for JSON and sent something else"):
        said(server, schema=schema)


def test_a_server_without_schemas_is_asked_in_words(server: Server) -> None:
    refusal = failure(400, "response_format json_schema is not supported")
    server.answer(refusal, failure(400, "response_format is not supported"), chunks('{"a": 1}'))
    assert said(server, schema={"type": "object"}).text == '{"a": 1}'
    assert "response_format" not in server.requests[-1]
    assert "JSON schema" in server.requests[-1]["messages"][-1]["content"]


def test_a_server_that_wants_the_other_name_for_max_tokens(server: Server) -> None:
    server.answer(failure(400, "Unsupported parameter: use max_completion_tokens instead"), chunks("ok"))
    assert said(server).text == "ok"
    assert server.requests[1]["max_completion_tokens"] == 20
    assert "max_tokens" not in server.requests[1]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_a_passing_failure_is_tried_again(status: int, server: Server) -> None:
    server.answer(failure(status, "not now"), failure(status, "not now"), chunks("Here."))
    assert said(server).text == "Here."
    assert len(server.requests) == 3


def test_retry_after_is_honoured(server: Server) -> None:
    server.answer(failure(429, "slow down", {"retry-after-ms": "400"}), chunks("Here."))
    begin = time.perf_counter()
    assert said(server).text == "Here."
    assert time.perf_counter() - begin >= 0.35


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (failure(401, "Incorrect API key provided: sk-very-secret"), r"refused the key \(401\): check OPENAI_API_KEY"),
        (failure(403, "no"), r"refused the key \(403\)"),
        (failure(404, "model not found"), r"has no model 'fake' \(404\): check the name and --base-url"),
        (failure(429, "quota"), r"still limits the rate after 4 retries \(429\): wait"),
        (failure(500, "broken"), r"failed \(500\) after 4 retries"),
        (failure(400, "maximum context length is 4096 tokens"), "longer than the model's window"),
        (failure(400, "bad temperature"), "rejected the request"),
        (Response("{not json", 200, media_type="application/json"), "empty or malformed answer"),
        (Response("", 200), "empty or malformed answer"),
        (HTMLResponse("<html>Welcome</html>"), "empty or malformed answer"),
        (chunks("Half an", cut=True), "stopped in the middle"),
        (Response("data: {garbage\n\n", 200, media_type="text/event-stream"), "stopped in the middle|cannot be read"),
        (
            Response('data: {"error": {"message": "out of memory"}}\n\n', 200, media_type="text/event-stream"),
            "out of memory",
        ),
    ],
)
def test_every_failure_is_one_sentence_without_the_key(reply: Reply | Response, message: str, server: Server) -> None:
    server.answer(reply)
    with pytest.raises(LongspanError, match=message) as raised:
        said(server)
    text = str(raised.value)
    assert "sk-very-secret" not in text
    assert "\n" not in text


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(LongspanError, match=r"cannot be reached .*: is the server running\?"):
        chatted(EndpointLLM("fake", base_url=f"http://127.0.0.1:{port}/v1"))


def test_a_slow_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.2)
    monkeypatch.setattr(module, "RETRIES", 1)
    server.hold = 2.0
    server.answer(chunks("late"))
    with pytest.raises(LongspanError, match="did not answer within"):
        said(server)


def test_no_key_and_no_server_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(LongspanError, match="Set OPENAI_API_KEY"):
        chatted(EndpointLLM("fake"))


def test_no_more_calls_at_once_than_allowed_and_hardly_fewer(server: Server) -> None:
    server.hold = 0.05
    server.answer(chunks("x"))
    llm = EndpointLLM("fake", base_url=server.url)

    async def many() -> None:
        await asyncio.gather(*(llm.chat([{"role": "user", "content": str(n)}], max_tokens=5) for n in range(40)))

    asyncio.run(many())
    assert server.most == module.CONCURRENT
    assert len(server.requests) == 40


def test_a_cancelled_call_ends_at_once(server: Server) -> None:
    server.hold = 5.0
    server.answer(chunks("x"))
    llm = EndpointLLM("fake", base_url=server.url)

    async def cancel() -> None:
        task = asyncio.create_task(llm.chat([{"role": "user", "content": "x"}], max_tokens=5))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    begin = time.perf_counter()
    asyncio.run(cancel())
    assert time.perf_counter() - begin < 2.0


@pytest.mark.parametrize(
    ("models", "window"),
    [
        ({"data": [{"id": "fake", "max_model_len": 9000}]}, 9000),
        ({"data": [{"id": "other", "context_length": 5000}, {"id": "fake", "context_length": 7000}]}, 7000),
        ({"data": [{"id": "alias", "meta": {"n_ctx": 2048}}]}, 2048),
        ({"data": [{"id": "fake"}]}, module.OWN_WINDOW),
        ({"nonsense": 1}, module.OWN_WINDOW),
        ([], module.OWN_WINDOW),
        (None, module.OWN_WINDOW),
    ],
)
def test_the_window_is_asked_for(models: Any, window: int, server: Server) -> None:
    server.models = models
    llm = EndpointLLM("fake", base_url=server.url)
    assert llm.window == window
    assert llm.effective_window == window // 2


def test_lone_surrogates_do_not_break_the_request(server: Server) -> None:
    server.answer(chunks("ok"))
    assert chatted(EndpointLLM("fake", base_url=server.url), "bad \ud800 text").text == "ok"


@given(st.text(max_size=200), st.text(max_size=200))
def test_the_estimate_of_tokens_is_monotone(left: str, right: str) -> None:
    llm = EndpointLLM("x")
    assert llm.count_tokens(left + right) >= max(llm.count_tokens(left), llm.count_tokens(right))
    assert llm.count_batch([left, right]) == [llm.count_tokens(left), llm.count_tokens(right)]


@pytest.mark.parametrize("text", ["1", "a,b", "1,-2", "1,2,3,4", ""])
def test_prices_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="are no prices: write INPUT,OUTPUT"):
        Prices.parse(text)


def test_names_of_models() -> None:
    assert isinstance(open_llm("openai:gpt", base_url="http://127.0.0.1:1/v1"), EndpointLLM)
    assert open_llm("openai:gpt", prices="1,2").prices == Prices(1.0, 2.0)  # type: ignore[attr-defined]
    assert open_llm("openai:gpt", base_url="http://127.0.0.1:1/v1", window=3000).window == 3000
    assert open_llm("smollm2").name == "smollm2"
    for spec, options, message in (
        ("openai:", {}, "Name the endpoint's model"),
        ("smollm2", {"base_url": "http://x"}, "write --model openai:smollm2"),
        ("smollm2", {"window": 4096}, "--window is for endpoints"),
        ("anthropic:claude", {}, "names no kind of model"),
        ("smollm2+yarn", {}, "no method 'yarn' yet"),
    ):
        with pytest.raises(UsageError, match=message):
            open_llm(spec, **options)
