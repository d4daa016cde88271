"""A bound on the tokens of a run that a workflow cannot exceed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from longspan.errors import LongspanError
from longspan.llm import LLM, Completion, Message, Sampling, Scorer

TEMPLATE = 48  # tokens that a chat template may add to a prompt (some add a system message of their own)


class BudgetSpent(LongspanError):
    """A call was not made because it might have exceeded the run's budget."""


class Budgeted:
    """An LLM whose calls, prompts and completions together, stay within `tokens`.

    A call is made only if its prompt and its whole `max_tokens` still fit; what calls under way may still use counts as
    spent, so the bound holds for calls in parallel too. Scoring counts the tokens it reads.
    """

    def __init__(self, llm: LLM, tokens: int) -> None:
        self.llm = llm
        self.left = tokens
        self.tokens = tokens
        self.name = llm.name
        self.window = llm.window
        self.effective_window = llm.effective_window
        self.reader = llm.reader
        self.tokenizer_name = llm.tokenizer_name
        self.count_tokens = llm.count_tokens
        self.count_batch = llm.count_batch
        if isinstance(llm, Scorer):
            self.loglikelihood = self._loglikelihood

    def _take(self, tokens: int) -> None:
        if tokens > self.left:
            raise BudgetSpent(
                f"The budget of {self.tokens} tokens has {max(self.left, 0)} left and the next call may take {tokens}: "
                "give a larger --budget."
            )
        self.left -= tokens

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
        reserved = sum(self.count_tokens(message["content"]) + 8 for message in messages) + TEMPLATE + max_tokens
        self._take(reserved)
        completion = await self.llm.chat(
            messages, max_tokens=max_tokens, sampling=sampling, stop=stop, schema=schema, on_text=on_text
        )
        self.left += reserved - completion.usage.prompt_tokens - completion.usage.completion_tokens
        return completion

    async def _loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, ...]]:
        assert isinstance(self.llm, Scorer)
        self._take(sum(self.count_batch([context + continuation for context, continuation in pairs])))
        return await self.llm.loglikelihood(pairs)
