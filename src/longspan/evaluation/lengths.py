"""Lengths in a model's own tokens: counting, and building a prompt of just the length asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from longspan.errors import UsageError
from longspan.llm.local import EMBEDDED


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts as one model does. `overhead` is what its chat template puts around one user message, in tokens."""

    name: str
    count: Callable[[str], int]
    starts: Callable[[str], list[int]]  # the character at which each token of a text begins
    overhead: int


def counter(tokenizer: str | None = None) -> TokenCounter:
    """The counter of the model named `tokenizer`; None is the model being evaluated.

    A model whose tokenizer is not on this machine (an endpoint) is counted with the embedded model's.
    """
    from longspan.evaluation.provider import active_llm, shared_llm

    if tokenizer is None:
        llm = active_llm()
        if llm is None:
            llm = shared_llm(EMBEDDED)
    else:
        llm = shared_llm(tokenizer)
    return TokenCounter(llm.name, llm.count_tokens, llm.token_starts, llm.template_tokens)


def fit(build: Callable[[int], str], counter: TokenCounter, room: int) -> tuple[int, str]:
    """The largest n for which `build(n)` has at most `room` tokens, and that text.

    `build` gives a longer text for a larger n, by nearly the same number of tokens for each step; n is at least 0.
    A few counts suffice: the step is measured on a small text, then corrected by secants.
    Raises UsageError when not even `build(0)` fits.
    """
    least = counter.count(build(0))
    if least > room:
        raise UsageError(f"A length of {room} tokens is too short for this task: {least} are needed before any filler.")
    low, low_tokens = 0, least  # fits
    high: int | None = None  # does not fit
    step = max(1, 64)
    rate = max((counter.count(build(step)) - least) / step, 1e-6)
    while high is None or high - low > 1:
        guess = low + int((room - low_tokens) / rate)
        guess = max(guess, low + 1) if high is None else min(max(guess, low + 1), high - 1)
        tokens = counter.count(build(guess))
        if tokens <= room:
            rate = max((tokens - low_tokens) / (guess - low), 1e-6) if tokens > low_tokens else rate
            low, low_tokens = guess, tokens
            if room - tokens < rate / 2:
                break  # the next step would not fit
        else:
            high = guess
            rate = max((tokens - low_tokens) / (guess - low), 1e-6)
    return low, build(low)


def parse_lengths(lengths: str | int | Sequence[int]) -> list[int]:
    """`4096`, `"1k,2k,4096"` or a sequence: lengths in tokens, ascending, each once. K is 1 024.

    Raises UsageError for what is no length.
    """
    parts = lengths.split(",") if isinstance(lengths, str) else [lengths] if isinstance(lengths, int) else lengths
    found = set()
    for part in parts:
        text = str(part).strip().lower()
        digits, unit = (text[:-1], text[-1]) if text[-1:] in ("k", "m") else (text, "")
        try:
            value = int(float(digits) * {"": 1, "k": 1 << 10, "m": 1 << 20}[unit])
        except ValueError:
            raise UsageError(f"{part!r} is no length: write tokens, as in 4096 or 4k, with commas between.") from None
        if value < 64:
            raise UsageError(f"A length of {value} tokens is too short to test anything: give at least 64.")
        found.add(value)
    return sorted(found)
