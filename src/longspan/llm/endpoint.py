"""A model behind the OpenAI protocol: any server that speaks chat completions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from longspan.errors import LongspanError, UsageError
from longspan.llm.protocol import Call, Completion, Message, OffSchema, Sampling, note
from longspan.llm.tools import reply_of, tools_of
from longspan.surrogates import replace_surrogates
from longspan.trace import Usage

CONCURRENT = 8  # calls under way at once
RETRIES = 4  # of 408, 409, 429 and 5xx answers and lost connections, with exponential backoff (the SDK's)
SECONDS = 300.0  # that a server may be silent
PATIENCE = 600.0  # seconds until an answer begins, retries included
CONNECT = 15.0  # seconds that it may take to be reached
DEFAULT_WINDOW = 32_768  # of the SDK's own address, where nothing is said
OWN_WINDOW = 8_192  # of a server of one's own that does not say: many are started with 4 096 or 8 192
CAPABLE = 0.5  # of a window that is claimed, the part that is trusted until it is measured
TOO_LONG = r"context.{0,12}(length|window|size|limit)|too long|maximum.*(length|tokens)|n_ctx|input token count"

# Bytes of UTF-8 a token, by kind: few tokenizers join digits or marks, and words of other scripts are cut up.
WORDS, MARKS, FOREIGN, DIGITS = 3.5, 1.5, 1.5, 1.0
IS_DIGIT = b"0123456789"
IS_MARK = bytes(code for code in range(33, 127) if not chr(code).isalnum())
IS_FOREIGN = bytes(range(128, 256))


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
            if len(numbers) not in (2, 3) or not all(math.isfinite(number) and number >= 0 for number in numbers):
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


@dataclass(frozen=True, slots=True)
class Dialect:
    """How requests are spelled. A server's complaint leads to the next spelling; what works is kept for all calls."""

    limit: str = "max_tokens"
    schema: str = "json_schema"
    usage: bool = True
    tools: bool = True  # actions go out as tools

    def after(self, complaint: str) -> Dialect | None:
        """The spelling to try next, or None where the complaint is about something else."""
        if "max_completion_tokens" in complaint and self.limit == "max_tokens":
            return replace(self, limit="max_completion_tokens")
        if "stream_options" in complaint and self.usage:
            return replace(self, usage=False)
        if "tool" in complaint and self.tools:
            return replace(self, tools=False)
        if re.search("response_format|json_schema|json_object", complaint) and self.schema != "prompt":
            return replace(self, schema="json_object" if self.schema == "json_schema" else "prompt")
        return None


class StreamCut(LongspanError):
    """The server stopped in the middle of an answer; `partial` is what came."""

    def __init__(self, message: str, partial: str) -> None:
        super().__init__(message)
        self.partial = partial


class EndpointLLM:
    """Chats with `name` at `base_url` (default: `$OPENAI_BASE_URL`, else the SDK's own), key from `$OPENAI_API_KEY`."""

    reader = "generate"
    tools = True  # schemas of actions go out as tools, where the server takes them

    def __init__(
        self, name: str, *, base_url: str | None = None, prices: Prices | None = None, window: int | None = None
    ) -> None:
        self.name = f"openai:{name}"
        self.model = name
        self.base_url = _address(base_url or os.environ.get("OPENAI_BASE_URL") or None)
        self.prices = prices
        self._window = window
        self._dialect = Dialect()
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
        """Half of the window: what a server claims was not measured."""
        return int(self.window * CAPABLE)

    @property
    def tokenizer_name(self) -> str:
        return f"bytes/{WORDS}/{MARKS}/{FOREIGN}/{DIGITS}"

    def count_tokens(self, text: str) -> int:
        """An estimate, for most texts from above: servers do not say how they count."""
        data = text.encode("utf-8", "replace")
        digits, marks, foreign = (
            len(data) - len(data.translate(None, kind)) for kind in (IS_DIGIT, IS_MARK, IS_FOREIGN)
        )
        words = len(data) - digits - marks - foreign
        return int(words / WORDS + marks / MARKS + foreign / FOREIGN + digits / DIGITS) + 1

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
                        min(meta.get("n_ctx_train") or 0, OWN_WINDOW),  # the model's, often more than the server gives
                    ):
                        if isinstance(value, int) and value > 0:
                            return value
        return None

    def _key(self) -> str:
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if key:
            if not re.fullmatch(r"[!-~]+", key):
                raise LongspanError("OPENAI_API_KEY holds blanks or characters that no key has: copy the key again.")
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
        self._gates = {known: gate for known, gate in self._gates.items() if not known.is_closed()}
        gate = self._gates.setdefault(loop, asyncio.Semaphore(CONCURRENT))
        with Call.of(messages, max_tokens, sampling, stop, schema).recorded(self.name) as step:
            async with gate:
                completion = await self._chat(messages, max_tokens, sampling, stop, schema, on_text)
            note(step, completion)
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
        timeout = openai.Timeout(SECONDS, connect=min(CONNECT, SECONDS))
        client = openai.AsyncOpenAI(api_key=self._key(), base_url=self.base_url, timeout=timeout, max_retries=RETRIES)
        said: list[str] = []
        try:
            async with client:
                while True:
                    dialect = self._dialect
                    request = self._request(dialect, messages, max_tokens, sampling, stop, schema)
                    try:
                        return await self._stream(client, request, messages, max_tokens, schema, on_text, begin, said)
                    except openai.APIError as error:  # also of 500: some servers answer so to what they do not know
                        if said or not self._adapt(dialect, error):
                            raise
        except TimeoutError as error:
            raise LongspanError(
                f"{self._where()} did not begin to answer within {PATIENCE:.0f} s: use a faster server, "
                "or give a smaller --window."
            ) from error
        except openai.APIError as error:
            raise self._explained(error, "".join(said)) from error
        except openai.OpenAIError as error:
            raise LongspanError(f"The endpoint client cannot start: {error}.") from error

    def _adapt(self, dialect: Dialect, error: Any) -> bool:
        """Whether to ask again, spelled otherwise than in `dialect`, after the server's complaint."""
        if self._dialect == dialect:  # else a call beside this one has adapted it meanwhile
            following = dialect.after(str(error).lower())
            if following is None:
                return False
            self._dialect = following
        return True

    def _request(
        self,
        dialect: Dialect,
        messages: Sequence[Message],
        max_tokens: int,
        sampling: Sampling,
        stop: Sequence[str],
        schema: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """The request's body: only what was set, so that servers which reject unknown parameters are served too."""
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [{**message, "content": replace_surrogates(message["content"])} for message in messages],
            dialect.limit: max_tokens,
            "stream": True,
        }
        if dialect.usage:
            request["stream_options"] = {"include_usage": True}
        if dialect.limit == "max_tokens":  # reasoning models, which want the other, allow no temperature
            request["temperature"] = sampling.temperature
        if sampling.top_p != 1.0:
            request["top_p"] = sampling.top_p
        if sampling.seed is not None:
            request["seed"] = sampling.seed
        extra = {"top_k": sampling.top_k or None, "min_p": sampling.min_p or None}
        request["extra_body"] = {name: value for name, value in extra.items() if value is not None}
        if stop:
            request["stop"] = list(stop)
        offered = tools_of(schema) if dialect.tools else None
        if offered:
            request["tools"], request["tool_choice"] = offered, "required"
        elif schema is not None:
            if dialect.schema == "json_schema":
                request["response_format"] = {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": schema, "strict": True},
                }
            else:
                request["messages"].append({"role": "user", "content": SCHEMA.format(schema=json.dumps(schema))})
                if dialect.schema == "json_object":  # llama.cpp and others follow a schema there
                    request["response_format"] = {"type": "json_object", "schema": schema}
        return request

    async def _stream(
        self,
        client: Any,
        request: dict[str, Any],
        messages: Sequence[Message],
        max_tokens: int,
        schema: dict[str, Any] | None,
        on_text: Callable[[str], None] | None,
        begin: float,
        said: list[str],
    ) -> Completion:
        import httpx
        import openai

        async with asyncio.timeout(PATIENCE):
            stream: AsyncIterator[Any] = await client.chat.completions.create(**request)
        counted: Any = None
        reason: str | None = None
        called = ["", ""]  # the first tool's name and arguments
        try:
            async for chunk in stream:
                counted = getattr(chunk, "usage", None) or counted
                for choice in getattr(chunk, "choices", None) or ():
                    piece = getattr(getattr(choice, "delta", None), "content", None)
                    if piece and isinstance(piece, str):
                        said.append(piece)
                        if on_text:
                            on_text(piece)
                    for call in getattr(getattr(choice, "delta", None), "tool_calls", None) or ():
                        if getattr(call, "index", 0) == 0 and (function := getattr(call, "function", None)):
                            called[0] += getattr(function, "name", None) or ""
                            called[1] += getattr(function, "arguments", None) or ""
                    reason = getattr(choice, "finish_reason", None) or reason
        except (httpx.HTTPError, openai.APIConnectionError, json.JSONDecodeError, UnicodeDecodeError) as error:
            why = type(error.__cause__ or error).__name__
            raise StreamCut(
                f"{self._where()} stopped in the middle of its answer ({why}): ask again, or look at the server's log.",
                "".join(said),
            ) from error
        if called[0]:
            said[:] = [reply_of(*called)]
        text = "".join(said)
        if reason is None and counted is None:
            if not said:
                tokens = sum(self.count_tokens(message["content"]) for message in messages)
                raise LongspanError(
                    f"{self._where()} sent an empty or malformed answer: is it an OpenAI-compatible server, with a "
                    f"window larger than the prompt of about {tokens} tokens (else say --window), that finishes calls "
                    "made at once (llama_cpp.server does with --interrupt_requests false)?"
                )
            raise StreamCut(f"{self._where()} stopped in the middle of its answer: ask again.", text)
        completion = Completion(
            text, self._usage(counted, messages, text, begin, max_tokens), "length" if reason == "length" else "stop"
        )
        if schema is not None and reason != "length":
            completion = replace(completion, text=self._checked(completion, schema))
        return completion

    def _usage(self, counted: Any, messages: Sequence[Message], text: str, begin: float, max_tokens: int) -> Usage:
        usage = Usage(1, seconds=time.perf_counter() - begin)
        if isinstance(getattr(counted, "prompt_tokens", None), int):
            usage.prompt_tokens = counted.prompt_tokens
            usage.completion_tokens = getattr(counted, "completion_tokens", None) or 0
            details = getattr(counted, "prompt_tokens_details", None)
            usage.cached_tokens = getattr(details, "cached_tokens", None) or 0
        else:  # the server did not count: estimates
            usage.prompt_tokens = sum(self.count_tokens(message["content"]) for message in messages)
            usage.completion_tokens = min(self.count_tokens(text), max_tokens)
        if self.prices is not None:
            usage.cost = self.prices.of(usage)
        return usage

    def _checked(self, completion: Completion, schema: dict[str, Any]) -> str:
        """The JSON in an answer that was to follow `schema`, without the fence that some models put around it."""
        text = completion.text
        fenced = re.fullmatch(r"\s*```(?:json)?\s*(.*?)\s*```\s*", text, re.DOTALL)
        found = fenced[1] if fenced else text
        try:
            followed = _follows(json.loads(found), schema)
        except (ValueError, RecursionError) as error:
            raise OffSchema(
                f"{self._where()} was asked for JSON and sent something else ({self._short(text)}): "
                "use a model that follows schemas.",
                completion,
            ) from error
        if not followed:
            raise OffSchema(
                f"{self._where()} sent JSON that does not follow the schema ({self._short(found)}): "
                "use a model that follows schemas.",
                completion,
            )
        return found

    def _where(self) -> str:
        """The server's name in a message: its address without the user, password or query that one may hold."""
        if self.base_url is None:
            return "The endpoint"
        parts = urlsplit(self.base_url)
        return f"The endpoint {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def _short(self, text: str) -> str:
        """Somebody else's words in one line of a message, without the key."""
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        line = " ".join(re.sub(r"<[^<>]*>", " ", text.replace(key, "…") if key else text).split())
        return (line if len(line) <= 300 else line[:300] + "…").rstrip(".:") or "it does not say why"

    def _explained(self, error: Any, partial: str) -> LongspanError:
        """The one sentence for an error of the SDK."""
        import openai

        where = self._where()
        said = self._short(_message(error))
        if partial:
            return StreamCut(f"{where} stopped in the middle of its answer ({said}): ask again.", partial)
        if isinstance(error, openai.APITimeoutError) and "Connect" not in type(error.__cause__).__name__:
            return LongspanError(
                f"{where} did not answer within {SECONDS:.0f} s, {RETRIES + 1} times over: use a faster server, "
                "or give a smaller --window."
            )
        if isinstance(error, openai.APIConnectionError):
            cause = self._short(str(error.__cause__ or error))
            return LongspanError(f"{where} cannot be reached ({cause}): is the server running?")
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return LongspanError(f"{where} refused the key ({error.status_code}): check OPENAI_API_KEY.")
        if isinstance(error, openai.NotFoundError):
            return LongspanError(
                f"{where} has no model {self.model!r} (404): check the name and --base-url, which mostly ends in /v1."
            )
        if isinstance(error, openai.RateLimitError):
            return LongspanError(
                f"{where} still limits the rate after retries (429, {said}): wait, or raise your quota."
            )
        if re.search(TOO_LONG, said, re.IGNORECASE) or getattr(error, "status_code", 0) == 413:
            return LongspanError(
                f"The prompt is longer than the window of {self.model!r} ({said}): give its size with --window."
            )
        if isinstance(error, openai.InternalServerError):
            return LongspanError(
                f"{where} failed ({error.status_code}) after {RETRIES} retries ({said}): look at the server's log."
            )
        if isinstance(error, openai.APIStatusError):
            return LongspanError(f"{where} rejected the request ({error.status_code}): {said}.")
        return LongspanError(f"{where} sent an answer that cannot be read ({said}): look at the server's log.")


SCHEMA = "Reply with one JSON object that follows this JSON schema, and nothing else:\n{schema}"


KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def _follows(value: Any, schema: Any) -> bool:
    """Whether a JSON value has the types, enumerated values, items and required members that a schema asks for."""
    if not isinstance(schema, dict):
        return True
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is_a(value, kind) for kind in kinds):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, list):
        return all(_follows(item, schema.get("items")) for item in value)
    if isinstance(value, dict):
        members = schema.get("properties", {})
        return set(schema.get("required", ())) <= value.keys() and all(
            _follows(value[name], members[name]) for name in value.keys() & members.keys()
        )
    return True


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):  # in Python a number too
        return kind == "boolean"
    return kind not in KINDS or isinstance(value, KINDS[kind])


def _address(url: str | None) -> str | None:
    """A server's address as given, once it can be one."""
    import httpx

    if url is None:
        return None
    try:
        parsed = httpx.URL(url.strip())
        possible = parsed.scheme in ("http", "https") and bool(parsed.host)
    except (httpx.InvalidURL, ValueError):
        possible = False
    if not possible:
        shown = re.sub(r"[^/]*@", "", url.partition("?")[0])  # without the user, password or query
        raise UsageError(
            f"{shown!r} is no server's address: write --base-url http://HOST:PORT/v1, or set OPENAI_BASE_URL so."
        )
    return url.strip()


def _message(error: Any) -> str:
    """What the server said, without the SDK's wrapping where it is known how."""
    body = getattr(error, "body", None)
    message = body.get("message") or body.get("detail") if isinstance(body, Mapping) else body
    return message if isinstance(message, str) else str(error)
