"""A model behind the OpenAI protocol: any server that speaks chat completions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from longspan.errors import LongspanError, UsageError
from longspan.llm.protocol import Completion, Message, Sampling
from longspan.trace import Usage, span

CONCURRENT = 8  # calls under way at once
RETRIES = 4  # of 408, 409, 429 and 5xx answers and lost connections, with exponential backoff (the SDK's)
SECONDS = 300.0  # that a call may take
DEFAULT_WINDOW = 32_768  # of the SDK's own address, where nothing is said
OWN_WINDOW = 8_192  # of a server of one's own that does not say: many are started with 4 096 or 8 192
CHARACTERS_PER_TOKEN = 3.2  # a conservative estimate; English text has about four
CAPABLE = 0.5  # of a window that is claimed, the part that is trusted until it is measured


@dataclass(frozen=True, slots=True)
class Prices:
    """Currency units per million tokens; `cached` prompt tokens cost as much as others unless given."""

    input: float
    output: float
    cached: float | None = None

    @classmethod
    def parse(cls, text: str) -> Prices:
        try:
            numbers = [float(part) for part in text.split(",")]
            if len(numbers) not in (2, 3) or min(numbers) < 0:
                raise ValueError
        except ValueError:
            raise UsageError(
                f"{text!r} are no prices: write INPUT,OUTPUT[,CACHED] per million tokens, as 0.25,2."
            ) from None
        return cls(*numbers)

    def of(self, usage: Usage) -> float:
        cached = self.input if self.cached is None else self.cached
        fresh = usage.prompt_tokens - usage.cached_tokens
        return (fresh * self.input + usage.cached_tokens * cached + usage.completion_tokens * self.output) / 1e6


class StreamCut(LongspanError):
    """The server stopped in the middle of an answer; `partial` is what came."""

    def __init__(self, message: str, partial: str) -> None:
        super().__init__(message)
        self.partial = partial


class EndpointLLM:
    """Chats with `name` at `base_url` (default: `$OPENAI_BASE_URL`, else the SDK's own), key from `$OPENAI_API_KEY`."""

    reader = "generate"

    def __init__(
        self, name: str, *, base_url: str | None = None, prices: Prices | None = None, window: int | None = None
    ) -> None:
        self.name = f"openai:{name}"
        self.model = name
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        self.prices = prices
        self._window = window
        self._token_parameter = "max_tokens"
        self._schema_style = "json_schema"
        self._gates: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}

    # -- what is known of the model ---------------------------------------------------------------------------------

    @property
    def window(self) -> int:
        """As given, else what the server says, else 32 768 (8 192 of a server of one's own)."""
        if self._window is None:
            self._window = self._ask_window() or (OWN_WINDOW if self.base_url else DEFAULT_WINDOW)
        return self._window

    @property
    def effective_window(self) -> int:
        """Half of the window, until `longspan effective` has measured it."""
        return int(self.window * CAPABLE)

    @property
    def tokenizer_name(self) -> str:
        return f"characters/{CHARACTERS_PER_TOKEN}"

    def count_tokens(self, text: str) -> int:
        """An estimate from above: servers do not say how they count."""
        return int(len(text.encode("utf-8", "replace")) / CHARACTERS_PER_TOKEN) + 1

    def count_batch(self, texts: list[str]) -> list[int]:
        return [self.count_tokens(text) for text in texts]

    def _ask_window(self) -> int | None:
        """The window from the server's list of models, where it is one of those that tell."""
        import httpx

        if self.base_url is None:
            return None
        with contextlib.suppress(httpx.HTTPError, ValueError, AttributeError, TypeError):
            headers = {"Authorization": f"Bearer {self._key()}"}
            listed = httpx.get(f"{self.base_url.rstrip('/')}/models", headers=headers, timeout=5.0).json()
            for model in listed.get("data", []):
                if model.get("id") == self.model or len(listed["data"]) == 1:
                    meta = model.get("meta") or {}
                    for value in (
                        model.get("max_model_len"),
                        model.get("context_length"),
                        model.get("context_window"),
                        meta.get("n_ctx"),
                        meta.get("n_ctx_train"),
                    ):
                        if isinstance(value, int) and value > 0:
                            return value
        return None

    def _key(self) -> str:
        key = os.environ.get("OPENAI_API_KEY")
        if key:
            return key
        if self.base_url is None:
            raise LongspanError("Set OPENAI_API_KEY to your key, or give --base-url for a server of your own.")
        return "none"  # servers of one's own take any

    # -- chatting ---------------------------------------------------------------------------------------------------

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        stop: Sequence[str] = (),
        schema: dict[str, Any] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """Answer the conversation; see `LLM.chat`. Raises LongspanError when the server cannot be made to answer."""
        loop = asyncio.get_running_loop()
        gate = self._gates.setdefault(loop, asyncio.Semaphore(CONCURRENT))
        with span(f"chat {self.name}", "llm", [dict(message) for message in messages]) as step:
            async with gate:
                completion = await self._chat(messages, max_tokens, sampling, stop, schema, on_text)
            step.output, step.usage = completion.text, completion.usage
        return completion

    async def _chat(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        sampling: Sampling,
        stop: Sequence[str],
        schema: dict[str, Any] | None,
        on_text: Callable[[str], None] | None,
    ) -> Completion:
        import openai

        begin = time.perf_counter()
        client = openai.AsyncOpenAI(api_key=self._key(), base_url=self.base_url, timeout=SECONDS, max_retries=RETRIES)
        said: list[str] = []
        try:
            async with client:
                while True:
                    try:
                        return await self._stream(
                            client, messages, max_tokens, sampling, stop, schema, on_text, begin, said
                        )
                    except openai.BadRequestError as error:
                        if said or not self._adapt(error):
                            raise
        except openai.APIError as error:
            raise self._explained(error, "".join(said)) from error
        except openai.OpenAIError as error:
            raise LongspanError(f"The endpoint client cannot start: {error}.") from error

    def _adapt(self, error: Any) -> bool:
        """Change how requests are spelled after the server's complaint; False when there is nothing to change."""
        complaint = str(error).lower()
        if "max_completion_tokens" in complaint and self._token_parameter == "max_tokens":
            self._token_parameter = "max_completion_tokens"
            return True
        if "response_format" in complaint or "json_schema" in complaint:
            following = {"json_schema": "json_object", "json_object": "prompt"}
            if self._schema_style in following:
                self._schema_style = following[self._schema_style]
                return True
        return False

    def _request(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        sampling: Sampling,
        stop: Sequence[str],
        schema: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """The request's body: only what was set, so that servers which reject unknown parameters are served too."""
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [{**message, "content": _clean(message["content"])} for message in messages],
            self._token_parameter: max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._token_parameter == "max_tokens":  # reasoning models, which want the other, allow no temperature
            request["temperature"] = sampling.temperature
        if sampling.top_p != 1.0:
            request["top_p"] = sampling.top_p
        if sampling.seed is not None:
            request["seed"] = sampling.seed
        extra = {"top_k": sampling.top_k or None, "min_p": sampling.min_p or None}
        request["extra_body"] = {name: value for name, value in extra.items() if value is not None}
        if stop:
            request["stop"] = list(stop)
        if schema is not None:
            if self._schema_style == "json_schema":
                request["response_format"] = {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": schema, "strict": True},
                }
            else:
                request["messages"].append({"role": "user", "content": SCHEMA.format(schema=json.dumps(schema))})
                if self._schema_style == "json_object":
                    request["response_format"] = {"type": "json_object"}
        return request

    async def _stream(
        self,
        client: Any,
        messages: Sequence[Message],
        max_tokens: int,
        sampling: Sampling,
        stop: Sequence[str],
        schema: dict[str, Any] | None,
        on_text: Callable[[str], None] | None,
        begin: float,
        said: list[str],
    ) -> Completion:
        import httpx

        request = self._request(messages, max_tokens, sampling, stop, schema)
        stream: AsyncIterator[Any] = await client.chat.completions.create(**request)
        counted: Any = None
        reason: str | None = None
        try:
            async for chunk in stream:
                counted = getattr(chunk, "usage", None) or counted
                for choice in getattr(chunk, "choices", None) or ():
                    piece = getattr(choice.delta, "content", None)
                    if piece:
                        said.append(piece)
                        if on_text:
                            on_text(piece)
                    reason = choice.finish_reason or reason
        except (httpx.HTTPError, json.JSONDecodeError) as error:
            raise StreamCut(
                f"{self._where()} stopped in the middle of its answer ({type(error).__name__}): ask again.",
                "".join(said),
            ) from error
        text = "".join(said)
        if reason is None and counted is None:
            if not said:
                tokens = sum(self.count_tokens(message["content"]) for message in messages)
                raise LongspanError(
                    f"{self._where()} sent an empty or malformed answer: is it an OpenAI-compatible server, and is its "
                    f"window larger than the prompt of about {tokens} tokens (else say --window)?"
                )
            raise StreamCut(f"{self._where()} stopped in the middle of its answer: ask again.", text)
        if schema is not None and reason != "length":
            _check_json(text, self._where())
        return Completion(text, self._usage(counted, messages, text, begin), "length" if reason == "length" else "stop")

    def _usage(self, counted: Any, messages: Sequence[Message], text: str, begin: float) -> Usage:
        usage = Usage(1, seconds=time.perf_counter() - begin)
        if counted is not None:
            usage.prompt_tokens = counted.prompt_tokens or 0
            usage.completion_tokens = counted.completion_tokens or 0
            details = getattr(counted, "prompt_tokens_details", None)
            usage.cached_tokens = getattr(details, "cached_tokens", None) or 0
        else:  # the server did not count: estimates
            usage.prompt_tokens = sum(self.count_tokens(message["content"]) for message in messages)
            usage.completion_tokens = self.count_tokens(text)
        if self.prices is not None:
            usage.cost = self.prices.of(usage)
        return usage

    def _where(self) -> str:
        return f"The endpoint {self.base_url}" if self.base_url else "The endpoint"

    def _explained(self, error: Any, partial: str) -> LongspanError:
        """The one sentence for an error of the SDK."""
        import openai

        where = self._where()
        if isinstance(error, openai.APITimeoutError):
            return LongspanError(f"{where} did not answer within {SECONDS:.0f} s: try again, or use a faster server.")
        if isinstance(error, openai.APIConnectionError):
            return LongspanError(f"{where} cannot be reached ({error.__cause__ or error}): is the server running?")
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return LongspanError(f"{where} refused the key ({error.status_code}): check OPENAI_API_KEY.")
        if isinstance(error, openai.NotFoundError):
            return LongspanError(f"{where} has no model {self.model!r} (404): check the name and --base-url.")
        if isinstance(error, openai.RateLimitError):
            return LongspanError(
                f"{where} still limits the rate after {RETRIES} retries (429): wait, or raise your quota."
            )
        if isinstance(error, openai.BadRequestError):
            said = _short(str(error))
            if re.search(r"context|too long|maximum.*(length|tokens)|n_ctx", said, re.IGNORECASE):
                return LongspanError(f"The prompt is longer than the model's window, says {where.lower()}: {said}")
            return LongspanError(f"{where} rejected the request: {said}")
        if isinstance(error, openai.APIStatusError):
            return LongspanError(f"{where} failed ({error.status_code}) after {RETRIES} retries: {_short(str(error))}")
        if partial:
            return StreamCut(f"{where} stopped in the middle of its answer: {_short(str(error))}", partial)
        return LongspanError(f"{where} sent an answer that cannot be read: {_short(str(error))}")


SCHEMA = "Reply with one JSON object that follows this JSON schema, and nothing else:\n{schema}"


def _check_json(text: str, where: str) -> None:
    try:
        json.loads(text)
    except ValueError as error:
        raise LongspanError(f"{where} was asked for JSON and sent something else: {_short(text)}") from error


def _clean(text: str) -> str:
    """Text that can be sent: lone surrogates become "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:300] + "…"
