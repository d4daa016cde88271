"""The one protocol for everything that answers: `await llm.chat(messages) -> Completion`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypedDict, runtime_checkable

from longspan.engine.sampling import Sampling
from longspan.errors import LongspanError
from longspan.trace import Span, Usage, span

__all__ = ["LLM", "Call", "Completion", "Message", "OffSchema", "Sampling", "Scorer"]


class Message(TypedDict):
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back. `finish_reason` is "stop" (end of turn or a stop string) or "length".

    `logprobs`, where asked for, holds the natural-log probability of each generated token. A model of this machine
    tells the seconds of reading and of writing apart; `decode_seconds` is shared by the chats written together.
    """

    text: str
    usage: Usage
    finish_reason: str
    logprobs: tuple[float, ...] | None = None
    prefill_seconds: float | None = None
    decode_seconds: float | None = None


class OffSchema(LongspanError):
    """The model was asked for JSON of a schema and wrote something else: `completion`, which was paid for."""

    def __init__(self, message: str, completion: Completion) -> None:
        super().__init__(message)
        self.completion = completion


@dataclass(frozen=True, slots=True)
class Call:
    """What one call asks of a model: the same calls to the same model have the same key."""

    messages: tuple[Message, ...]
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...]
    schema: dict[str, Any] | None

    @classmethod
    def of(
        cls,
        messages: Sequence[Message],
        max_tokens: int,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        stop: Sequence[str] = (),
        schema: dict[str, Any] | None = None,
    ) -> Call:
        copied = tuple(Message(role=message["role"], content=message["content"]) for message in messages)
        return cls(copied, max_tokens, sampling, tuple(stop), schema)

    def key(self, model: str) -> str:
        """The hash of the model, the messages and every parameter."""
        return _hash(model, asdict(self))

    def attributes(self, model: str) -> dict[str, Any]:
        """What a trace keeps of the call besides its messages; parameters that are off are left out."""
        given = {"max_tokens": self.max_tokens, **asdict(self.sampling), "stop": list(self.stop), "schema": self.schema}
        off = {**asdict(Sampling()), "temperature": None, "stop": [], "schema": None}
        kept = {name: value for name, value in given.items() if value != off.get(name, ())}
        return {"key": self.key(model), "model": model, **kept}

    @contextmanager
    def recorded(self, model: str) -> Iterator[Span]:
        """A span for this call; hand it the completion with `note`."""
        with span(f"chat {model}", "llm", [dict(message) for message in self.messages]) as step:
            step.attributes = self.attributes(model)
            try:
                yield step
            except OffSchema as error:
                note(step, error.completion)
                raise


def note(step: Span, completion: Completion) -> None:
    """Write what came back into the call's span."""
    step.output, step.usage = completion.text, completion.usage
    step.attributes["finish_reason"] = completion.finish_reason


def scoring_key(model: str, pairs: Sequence[tuple[str, str]]) -> str:
    """The key of a call of `Scorer.loglikelihood`."""
    return _hash(model, [list(pair) for pair in pairs])


def _hash(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, ensure_ascii=True, sort_keys=True).encode()).hexdigest()[:32]


class LLM(Protocol):
    """A model that chats.

    `window` is in tokens; `effective_window` is how much of it is known to be used well. `reader` is the way of reading
    that suits the model: "generate" (it writes answers) or "extract" (it chooses quotes). `tokenizer_name` tells apart
    tokenizers that count differently.
    """

    @property
    def name(self) -> str: ...
    @property
    def window(self) -> int: ...
    @property
    def effective_window(self) -> int: ...
    @property
    def reader(self) -> str: ...
    @property
    def tokenizer_name(self) -> str: ...

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        sampling: Sampling = ...,
        stop: Sequence[str] = (),
        schema: dict[str, Any] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """Answer the conversation. `schema` (JSON schema) is enforced; `on_text` receives text as it is made."""
        ...

    def count_tokens(self, text: str) -> int: ...

    def count_batch(self, texts: list[str]) -> list[int]:
        """The token count of each text, faster than one by one."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """An LLM that can also say how likely a continuation is: what a local model can and most endpoints cannot."""

    async def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, ...]]:
        """For each (context, continuation): the log probability (nats) of each continuation token."""
        ...
