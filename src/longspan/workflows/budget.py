"""Bounds on what a run may spend, which a workflow cannot exceed."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from longspan.errors import LongspanError, UsageError
from longspan.llm import LLM, Call, Completion, Message, OffSchema, Sampling, Scorer
from longspan.llm.protocol import scoring_key
from longspan.trace import Usage, span

TEMPLATE = 48  # tokens that a chat template may add to a prompt (some add a system message of their own)
MESSAGE = 8  # tokens that it may add to each message


class BudgetSpent(LongspanError):
    """A call was not made, or not finished, because it might have exceeded the run's budget."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a run may spend: model `calls`, `tokens` read and written, `seconds` of wall time, `cost` in the
    currency of the prices. None is no bound."""

    calls: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    cost: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """`20000` (tokens), or any of `calls=50,tokens=20000,seconds=60,cost=0.5`."""
        given: dict[str, float] = {}
        for part in text.split(","):
            name, equals, number = part.rpartition("=")
            name = name.strip() if equals else "tokens"
            try:
                value = float(number)
            except ValueError:
                value = math.nan
            known = [field.name for field in fields(cls)]
            if name not in known or name in given or not math.isfinite(value) or value < 0:
                raise UsageError(
                    f"{text!r} is no budget: write tokens, as 20000, or any of "
                    "calls=50,tokens=20000,seconds=60,cost=0.5."
                )
            given[name] = value
        whole = {name: int(value) for name, value in given.items() if name in ("calls", "tokens")}
        return cls(**{**given, **whole})  # type: ignore[arg-type]  # whole numbers where they belong

    @classmethod
    def of(cls, given: Budget | int | None) -> Budget:
        """A number alone is tokens."""
        return given if isinstance(given, Budget) else cls(tokens=given)

    @property
    def bounded(self) -> bool:
        return any(getattr(self, field.name) is not None for field in fields(self))


def reserve(llm: LLM, messages: Sequence[Message], max_tokens: int) -> tuple[int, int]:
    """The most tokens that a call may read and write, counted before it is made."""
    return sum(llm.count_tokens(message["content"]) + MESSAGE for message in messages) + TEMPLATE, max_tokens


def latest(
    llm: LLM, fixed: Sequence[Message], turns: Sequence[tuple[Message, Message]], max_tokens: int
) -> list[Message]:
    """The last turns that fit the window beside `fixed` and a reply of `max_tokens`."""
    kept: list[Message] = []
    for pair in reversed(turns):
        if sum(reserve(llm, [*fixed, *pair, *kept], max_tokens)) > llm.window:
            break
        kept = [*pair, *kept]
    return kept


class Budgeted:
    """An LLM whose calls stay within `budget`.

    A call is made only if its prompt and its whole `max_tokens` still fit; what calls under way may still use counts as
    spent, so the bounds hold for calls in parallel too. Scoring counts the tokens it reads. The clock starts here: no
    call begins after the deadline, and those under way are stopped at it. `refused` counts what was not made or
    finished; each is also a span of the trace, so that a replay meets it again.
    """

    def __init__(self, llm: LLM, budget: Budget | int) -> None:
        self.llm = llm
        self.budget = Budget.of(budget)
        self.spent = Usage(cost=0.0)  # with what is reserved for calls under way
        self.refused = 0
        self.name = llm.name
        self.window = llm.window
        self.effective_window = llm.effective_window
        self.reader = llm.reader
        self.tokenizer_name = llm.tokenizer_name
        self.tools: bool = getattr(llm, "tools", False)
        self.count_tokens = llm.count_tokens
        self.count_batch = llm.count_batch
        self.prices = getattr(llm, "prices", None)
        if self.budget.cost is not None and self.prices is None:
            raise UsageError(f"A budget of cost needs prices, and none are known of {llm.name}: give --prices.")
        self._deadline = None if self.budget.seconds is None else time.monotonic() + self.budget.seconds
        if isinstance(llm, Scorer):
            self.loglikelihood = self._loglikelihood

    def seconds_left(self) -> float | None:
        """Until the deadline; None where there is none."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    def _take(self, key: str, most: Usage) -> None:
        """Count `most` as spent, or raise BudgetSpent."""
        after = self.spent + most
        tokens, limit = after.prompt_tokens + after.completion_tokens, self.budget
        left = self.seconds_left()
        why = ""
        if limit.calls is not None and after.calls > limit.calls:
            why = f"The budget of {limit.calls} calls is spent"
        elif limit.tokens is not None and tokens > limit.tokens:
            needs = most.prompt_tokens + most.completion_tokens
            have = max(limit.tokens - (tokens - needs), 0)
            why = f"The budget of {limit.tokens} tokens has {have} left and the next call may take {needs}"
        elif limit.cost is not None and (after.cost or 0.0) > limit.cost:
            why = (
                f"The budget of {limit.cost:g} has {limit.cost - (self.spent.cost or 0.0):.4f} left and the next call "
            )
            why += f"may cost {most.cost or 0.0:.4f}"
        elif left is not None and left <= 0:
            why = f"The budget of {limit.seconds:g} s is spent"
        if why:
            self._refuse(key, f"{why}: give a larger --budget.")
        self.spent = after

    def _refuse(self, key: str, why: str) -> None:
        self.refused += 1
        with span(f"chat {self.name}", "llm") as step:
            step.attributes = {"key": key, "model": self.name}
            raise BudgetSpent(why)

    def _settle(self, most: Usage, used: Usage) -> None:
        """Give back what a call did not use of what it might have."""
        paid = used.cost if used.cost is not None or self.prices is None else self.prices.of(used)
        cost = (self.spent.cost or 0.0) - (most.cost or 0.0) + (paid or 0.0)
        self.spent = Usage(
            self.spent.calls,
            self.spent.prompt_tokens - most.prompt_tokens + used.prompt_tokens,
            self.spent.completion_tokens - most.completion_tokens + used.completion_tokens,
            cost=cost,
        )

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
        counts = self.budget.tokens is not None or self.budget.cost is not None
        most = Usage(1, *reserve(self, messages, max_tokens)) if counts else Usage(1)
        if self.prices is not None:
            most.cost = self.prices.of(most)
        key = Call.of(messages, max_tokens, sampling, stop, schema).key(self.name)
        self._take(key, most)
        try:
            async with asyncio.timeout(self.seconds_left()):
                completion = await self.llm.chat(
                    messages, max_tokens=max_tokens, sampling=sampling, stop=stop, schema=schema, on_text=on_text
                )
        except TimeoutError:
            self.refused += 1
            raise BudgetSpent(
                f"The budget of {self.budget.seconds:g} s was spent during a call: give a larger --budget."
            ) from None
        except OffSchema as error:
            self._settle(most, error.completion.usage)
            raise
        self._settle(most, completion.usage)
        return completion

    async def _loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, ...]]:
        assert isinstance(self.llm, Scorer)
        tokens = sum(self.count_batch([context + continuation for context, continuation in pairs]))
        self._take(scoring_key(self.name, pairs), Usage(1, tokens))
        try:
            async with asyncio.timeout(self.seconds_left()):
                return await self.llm.loglikelihood(pairs)
        except TimeoutError:
            self.refused += 1
            raise BudgetSpent(
                f"The budget of {self.budget.seconds:g} s was spent while quotes were read: give a larger --budget."
            ) from None
