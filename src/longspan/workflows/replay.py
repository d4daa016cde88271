"""A run again from its trace: the workflow reads the same texts, and every call is answered as it was then."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any

from longspan.errors import LongspanError
from longspan.llm import LLM, Call, Completion, Message, Sampling
from longspan.llm.protocol import scoring_key
from longspan.trace import Span, Usage, span
from longspan.workflows.budget import BudgetSpent

NOT_HELD = (
    "The run differs from its trace at a call that the trace does not hold: sources, settings or longspan's version "
    "are not those of the run."
)


class Replayed:
    """An LLM that knows the calls of a recorded run by their keys, and no others; equal calls are answered in turn.

    `counter` only counts tokens. A call that failed, or that the budget did not allow, fails again.
    """

    def __init__(self, root: Span, counter: LLM) -> None:
        facts = root.attributes
        if "window" not in facts:
            raise LongspanError("This trace does not say what a replay needs: it is of an older version of longspan.")
        self.name: str = facts["model"]
        self.window: int = facts["window"]
        self.effective_window: int = facts["effective_window"]
        self.reader: str = facts["reader"]
        self.tokenizer_name: str = facts["tokenizer"]
        self.tools: bool = facts.get("tools", False)
        self.count_tokens = counter.count_tokens
        self.count_batch = counter.count_batch
        self._calls: dict[str, deque[Span]] = defaultdict(deque)
        for step in root.walk():
            if step.kind == "llm" and "key" in step.attributes:
                self._calls[step.attributes["key"]].append(step)
        if facts["scores"]:
            self.loglikelihood = self._loglikelihood

    def _next(self, key: str) -> Span:
        if not self._calls[key]:
            raise LongspanError(NOT_HELD)
        step = self._calls[key].popleft()
        if step.error is not None and step.output is None:
            kind, _, message = step.error.partition(": ")
            if kind in ("BudgetSpent", "CancelledError"):  # at the deadline
                raise BudgetSpent(message or "The call was stopped in the run that is replayed.")
            raise LongspanError(message or step.error)
        return step

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
        call = Call.of(messages, max_tokens, sampling, stop, schema)
        step = self._next(call.key(self.name))
        with span(f"replay {self.name}", "replay") as here:
            here.output = step.output
        if on_text:
            on_text(step.output)
        return Completion(step.output, Usage(), step.attributes["finish_reason"])

    async def _loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, ...]]:
        return [tuple(scored) for scored in self._next(scoring_key(self.name, pairs)).output]
