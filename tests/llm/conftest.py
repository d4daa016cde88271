"""A server that speaks the OpenAI protocol as a test tells it to, on the loopback interface."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

Reply = Callable[[dict[str, Any]], Any]


def chunks(text: str, *, usage: dict[str, Any] | None = None, reason: str | None = "stop", cut: bool = False) -> Reply:
    """A streamed answer, word by word; `cut` ends it in the middle of its last event."""

    async def stream() -> AsyncIterator[str]:
        for number, word in enumerate(text.split(" ")):
            piece = word if number == 0 else f" {word}"
            yield event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
            await asyncio.sleep(0)
        if cut:
            yield 'data: {"choices": [{"ind'
            return
        if reason:
            yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if usage is not None:
            yield event({"choices": [], "usage": usage})
        yield "data: [DONE]\n\n"

    return events(stream)


def events(stream: Callable[[], AsyncIterator[str]]) -> Reply:
    return lambda body: StreamingResponse(stream(), media_type="text/event-stream")


def event(fields: dict[str, Any]) -> str:
    body = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "fake", **fields}
    return f"data: {json.dumps(body)}\n\n"


def called(name: str, *pieces: str) -> Reply:
    """A stream that calls a tool, its arguments in pieces, as servers send it."""

    async def stream() -> AsyncIterator[str]:
        first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
        deltas: list[dict[str, Any]] = [{"tool_calls": [first]}]
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces]
        for delta in deltas:
            yield event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
        yield "data: [DONE]\n\n"

    return events(stream)


def failure(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"message": message, "type": "x", "code": None}}, status, headers)


@dataclass
class Server:
    """`replies` are used up one a request, the last one again and again; `requests` are the bodies received."""

    url: str
    replies: list[Reply | Response] = field(default_factory=list)
    models: Any = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    running: int = 0
    most: int = 0
    hold: float = 0.0

    def answer(self, *replies: Reply | Response) -> None:
        self.replies = list(replies)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    app = FastAPI()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    state = Server(f"http://127.0.0.1:{port}/v1")

    @app.get("/v1/models")
    async def models() -> Any:
        return state.models if state.models is not None else Response(status_code=404)

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> Any:
        body = await request.json()
        state.requests.append(body)
        state.headers.append(dict(request.headers))
        state.running += 1
        state.most = max(state.most, state.running)
        try:
            if state.hold:
                await asyncio.sleep(state.hold)
            reply = state.replies.pop(0) if len(state.replies) > 1 else state.replies[0]
            return reply(body) if not isinstance(reply, Response) else reply
        finally:
            state.running -= 1

    running = uvicorn.Server(
        uvicorn.Config(app, port=port, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield state
    running.should_exit = True
    running.force_exit = True
    thread.join(5)
