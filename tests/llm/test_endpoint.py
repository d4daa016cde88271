"""Endpoints: streams, counts and costs, and one sentence for each way in which a server can fail."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from fastapi.responses import HTMLResponse, JSONResponse, Response
from hypothesis import given
from hypothesis import strategies as st

from longspan.errors import LongspanError, UsageError
from longspan.llm import Completion, EndpointLLM, LocalLLM, Message, Prices, Sampling
from longspan.llm import endpoint as module

from .conftest import Reply, Server, called, chunks, event, events, failure

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
    options = {"max_tokens": 20, **options}
    return asyncio.run(llm.chat([{"role": "user", "content": content}], **options))


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
    server.answer(chunks("One " * 400, reason="length"))
    assert said(server, max_tokens=64).usage.completion_tokens == 64  # no estimate is above what was allowed


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


AGE = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "kind": {"enum": ["cat", "dog"]}},
    "required": ["age"],
}


def test_a_schema_is_passed_on_and_its_answer_checked(server: Server) -> None:
    server.answer(chunks('{"age": 1}'))
    assert said(server, schema=AGE).text == '{"age": 1}'
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == AGE
    server.answer(chunks('```json\n{"age": 2}\n```'))
    assert said(server, schema=AGE).text == '{"age": 2}'
    for wrong in ("Here you are: 1", "", "[" * 100_000):
        server.answer(chunks(wrong))
        with pytest.raises(LongspanError, match=r"asked for JSON and sent something else .*: use a model that"):
            said(server, schema=AGE)
    for wrong in ('{"age": "1"}', '{"kind": "cat"}', '{"age": true}', "[1]", '{"age": 1, "kind": "cow"}'):
        server.answer(chunks(wrong))
        with pytest.raises(LongspanError, match="does not follow the schema"):
            said(server, schema=AGE)
    server.answer(chunks('{"age": ', reason="length"))
    assert said(server, schema=AGE).finish_reason == "length"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, "cat", "cow"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["age", "kind", "list"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(VALUES)
def test_following_a_schema_means_what_jsonschema_means(value: Any) -> None:
    for schema in (
        AGE,
        {"type": ["string", "null"]},
        {"type": "array", "items": {"type": "number"}},
        {"properties": {"list": {"type": "array", "items": AGE}}, "required": ["list"]},
        {"enum": ["cat", None]},
        {},
    ):
        assert module._follows(value, schema) == jsonschema.Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_server_without_schemas_is_asked_in_words(status: int, server: Server) -> None:
    """llama-cpp-python answers 500 to a kind of response_format that it does not know."""
    refused = failure(status, "Input should be 'text' or 'json_object': response_format, type")
    server.answer(lambda body: refused if wants(body) == "json_schema" else chunks('{"age": 1}')(body))
    assert said(server, schema=AGE).text == '{"age": 1}'
    assert server.requests[-1]["response_format"] == {"type": "json_object", "schema": AGE}
    refused = failure(status, "response_format is not supported")
    server.answer(lambda body: refused if wants(body) else chunks('{"age": 1}')(body))
    assert said(server, schema=AGE).text == '{"age": 1}'
    assert "JSON schema" in server.requests[-1]["messages"][-1]["content"]
    server.answer(refused)
    with pytest.raises(LongspanError, match="response_format is not supported"):
        said(server, schema=AGE)


def wants(body: dict[str, Any]) -> str | None:
    kind: str | None = body.get("response_format", {}).get("type")
    return kind


def test_a_server_that_wants_the_other_name_for_max_tokens(server: Server) -> None:
    server.answer(failure(400, "Unsupported parameter: use max_completion_tokens instead"), chunks("ok"))
    assert said(server).text == "ok"
    assert server.requests[1]["max_completion_tokens"] == 20
    assert not {"max_tokens", "temperature"} & set(server.requests[1])


def test_a_server_that_rejects_stream_options(server: Server) -> None:
    server.answer(failure(422, "stream_options: Extra inputs are not permitted"), chunks("ok"))
    assert said(server).text == "ok"
    assert "stream_options" not in server.requests[1]


def test_calls_at_once_adapt_together(server: Server) -> None:
    """Each is refused in the first spelling; none may take the others' adaptation for its own."""

    def reply(body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            return failure(400, "use max_completion_tokens")
        if wants(body):
            return failure(400, "response_format is not supported")
        return chunks('{"age": 1}')(body)

    server.hold = 0.05
    server.answer(reply)
    llm = EndpointLLM("fake", base_url=server.url)

    async def many() -> list[Completion]:
        question: list[Message] = [{"role": "user", "content": "How old?"}]
        return await asyncio.gather(*(llm.chat(question, max_tokens=9, schema=AGE) for _ in range(6)))

    assert {completion.text for completion in asyncio.run(many())} == {'{"age": 1}'}
    before = len(server.requests)
    asyncio.run(many())
    assert len(server.requests) == before + 6  # what works is kept


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
        (failure(429, "quota"), r"still limits the rate after retries \(429, quota\): wait"),
        (failure(500, "broken"), r"failed \(500\) after 4 retries"),
        (failure(500, "broken by sk-very-secret"), r"\(broken by …\): look at the server's log"),
        (failure(500, "context deadline exceeded"), r"failed \(500\)"),
        (HTMLResponse("<html><h1>502 Bad\nGateway</h1></html>", 502), r"failed \(502\) .*\(502 Bad Gateway\)"),
        (Response("", 503), r"failed \(503\)"),
        (failure(400, "maximum context length is 4096 tokens"), "longer than the window of 'fake' .* --window"),
        (failure(413, "Request Entity Too Large"), "longer than the window of 'fake'"),
        (failure(500, "the request exceeds the available context size"), "longer than the window of 'fake'"),
        (failure(400, "bad temperature"), r"rejected the request \(400\): bad temperature\."),
        (failure(402, "pay first"), r"rejected the request \(402\): pay first\."),
        (JSONResponse({"detail": "no such field"}, 422), r"rejected the request \(422\): no such field\."),
        (Response("{not json", 200, media_type="application/json"), "empty or malformed answer"),
        (Response("", 200), "empty or malformed answer"),
        (Response("data: [DONE]\n\n", media_type="text/event-stream"), r"about 2 tokens .*--interrupt_requests false"),
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
    assert "<" not in text


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
    with pytest.raises(LongspanError, match="did not answer within 0 s, 2 times over"):
        said(server)
    assert len(server.requests) == 2


def test_a_server_that_stays_slow_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many retries are left: else one sentence would take half an hour."""
    monkeypatch.setattr(module, "SECONDS", 0.2)
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    server.hold = 2.0
    server.answer(chunks("late"))
    with pytest.raises(LongspanError, match="did not begin to answer within"):
        said(server)
    assert len(server.requests) <= module.RETRIES


async def half_then(what: str) -> AsyncIterator[str]:
    if what != "dies at once":
        yield event({"choices": [{"index": 0, "delta": {"content": "Half an"}, "finish_reason": None}]})
    else:
        yield event({"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]})
    if what == "sleeps":
        await asyncio.sleep(2)
    elif what == "says error":
        yield 'data: {"error": {"message": "out of memory"}}\n\n'
    elif what.startswith("dies"):
        raise RuntimeError("the connection is dropped without an end")


@pytest.mark.parametrize("what", ["dies", "dies at once", "ends", "sleeps", "says error"])
def test_a_broken_answer_is_given_as_far_as_it_came(what: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.3)
    server.answer(events(lambda: half_then(what)))
    with pytest.raises(module.StreamCut, match="stopped in the middle of its answer") as raised:
        said(server)
    assert raised.value.partial == ("" if what == "dies at once" else "Half an")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": [], "usage": {}},
        {"choices": [], "usage": {"prompt_tokens": None, "completion_tokens": None}},
        {"choices": None},
        {"choices": [None]},
        {"choices": [{"index": 0, "delta": None, "finish_reason": None}]},
        {"choices": [{"index": 0}]},
        {"choices": [{"index": 0, "delta": {"content": ["a list"]}}]},
        {"choices": [{"index": 0, "delta": {"content": None, "reasoning_content": "hm"}}]},
    ],
)
def test_odd_events_do_no_harm(odd: dict[str, Any], server: Server) -> None:
    async def stream() -> AsyncIterator[str]:
        yield event(odd)
        yield event({"choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]})
        yield event(odd)
        yield "data: [DONE]\n\n"

    server.answer(events(stream))
    completion = said(server)
    assert completion.text == "ok"
    assert completion.usage.prompt_tokens > 0


@pytest.mark.parametrize("key", ["sk-very-secret\n", " sk-very-secret"])
def test_blanks_around_a_key_are_left_out(key: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    server.answer(chunks("ok"))
    assert said(server).text == "ok"
    assert server.headers[0]["authorization"] == "Bearer sk-very-secret"


@pytest.mark.parametrize("key", ["sk-very\nsecret", "sk-very secret", "sk-véry-secret", "sk-very\x1bsecret"])
def test_a_key_that_cannot_be_one(key: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(LongspanError, match=r"OPENAI_API_KEY holds .*: copy the key again") as raised:
        said(server)
    assert "secret" not in str(raised.value)


def test_a_server_of_ones_own_needs_no_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    server.answer(chunks("ok"))
    assert said(server).text == "ok"
    server.answer(failure(400, "none of this"))
    with pytest.raises(LongspanError, match="none of this"):
        said(server)


def test_a_password_in_the_address_is_not_shown() -> None:
    with pytest.raises(LongspanError, match="cannot be reached") as raised:
        chatted(EndpointLLM("fake", base_url="http://me:hidden@127.0.0.1:1/v1?token=hidden"))
    assert "hidden" not in str(raised.value)
    assert "http://127.0.0.1:1/v1" in str(raised.value)


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


def test_a_cancelled_call_ends_at_once_on_both_sides(server: Server) -> None:
    closed = threading.Event()

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield event({"choices": [{"index": 0, "delta": {"content": "on "}, "finish_reason": None}]})
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    server.answer(events(endless))
    llm = EndpointLLM("fake", base_url=server.url)

    async def cancel() -> None:
        heard = asyncio.Event()
        question: list[Message] = [{"role": "user", "content": "x"}]
        task = asyncio.create_task(llm.chat(question, max_tokens=5, on_text=lambda piece: heard.set()))
        await heard.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    begin = time.perf_counter()
    asyncio.run(cancel())
    assert closed.wait(2)
    assert time.perf_counter() - begin < 2.0


def test_each_loop_has_its_own_gate_and_closed_ones_are_forgotten(server: Server) -> None:
    server.answer(chunks("ok"))
    llm = EndpointLLM("fake", base_url=server.url)
    for _ in range(3):
        chatted(llm)
    assert len(llm._gates) == 1


@pytest.mark.parametrize(
    ("models", "window"),
    [
        ({"data": [{"id": "fake", "max_model_len": 9000}]}, 9000),
        ({"data": [{"id": "other", "context_length": 5000}, {"id": "fake", "context_length": 7000}]}, 7000),
        ({"data": [{"id": "alias", "meta": {"n_ctx": 2048, "n_ctx_train": 131072}}]}, 2048),
        ({"data": [{"id": "alias", "meta": {"n_ctx_train": 4096}}]}, 4096),
        ({"data": [{"id": "alias", "meta": {"n_ctx_train": 131072}}]}, module.OWN_WINDOW),
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


def test_the_estimate_is_seldom_below_what_a_tokenizer_counts() -> None:
    """SmolLM2 counts each digit and knows little but English: a hard case for an estimate."""
    llm, local = EndpointLLM("x"), LocalLLM("smollm2")
    numbers = random.Random(1)
    for text, least in (
        (Path(__file__).read_text(encoding="utf-8"), 1.0),
        ("It was the best of times, it was the worst of times, it was the age of wisdom. " * 20, 1.0),
        ("\n".join(",".join(str(numbers.randint(0, 99999)) for _ in range(8)) for _ in range(99)), 0.9),
        (json.dumps([{"id": number, "ok": True} for number in range(99)]), 0.9),
        ("長い文書を読む言語モデルは、窓の大きさに限りがあります。" * 20, 1.0),
        ("Длинный текст читается по частям, а затем ответы соединяются. " * 20, 1.0),
        (numbers.randbytes(999).hex(), 0.7),
    ):
        assert least <= llm.count_tokens(text) / local.count_tokens(text) < 1.7


@pytest.mark.parametrize("text", ["1", "a,b", "1,-2", "1,2,3,4", "", "nan,1", "1,inf"])
def test_prices_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="are no prices: write INPUT,OUTPUT"):
        Prices.parse(text)


# -- tools -------------------------------------------------------------------------------------------------------------

ACTIONS = {
    "type": "object",
    "properties": {"do": {"anyOf": [{"$ref": "#/$defs/Search"}, {"$ref": "#/$defs/Stop"}]}},
    "required": ["do"],
    "$defs": {
        "Search": {
            "type": "object",
            "description": "Search the text.",
            "properties": {"action": {"const": "search"}, "query": {"type": "string"}},
            "required": ["action", "query"],
        },
        "Stop": {"type": "object", "properties": {"action": {"const": "stop"}}, "required": ["action"]},
    },
}


def test_actions_go_out_as_tools_and_a_call_comes_back_as_the_reply(server: Server) -> None:
    server.answer(called("search", '{"que', 'ry": "mill"}'))
    assert json.loads(said(server, schema=ACTIONS).text) == {"do": {"action": "search", "query": "mill"}}
    [body] = server.requests
    assert [tool["function"]["name"] for tool in body["tools"]] == ["search", "stop"]
    assert body["tools"][0]["function"]["parameters"]["required"] == ["query"]
    assert body["tool_choice"] == "required" and "response_format" not in body


def test_a_server_without_tools_is_given_the_schema(server: Server) -> None:
    refused = failure(400, "tools are not supported")
    server.answer(refused, chunks('{"do": {"action": "stop"}}'))
    assert said(server, schema=ACTIONS).text == '{"do": {"action": "stop"}}'
    assert "tools" not in server.requests[-1]
    assert server.requests[-1]["response_format"]["json_schema"]["schema"] == ACTIONS
