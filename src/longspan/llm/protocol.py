"""The one protocol for everything that answers: `await llm.chat(messages) -> Completion`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, runtime_checkable

from longspan.engine.sampling import Sampling
from longspan.trace import Usage

__all__ = ["LLM", "Completion", "Message", "Sampling", "Scorer"]


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
