"""Prompt look-up: what came after the last tokens when they stood in the text before is a guess of what comes now.

Answers about a long text quote it, so the guess is often right, and one pass over the weights then gives several
tokens. A token is kept only where it is the model's own choice: the text stays the same (speculative decoding,
Leviathan et al. 2023, arXiv:2211.17192, with the text as the draft model; Saxena 2023, "Prompt lookup decoding").
"""

from __future__ import annotations

from collections.abc import Sequence

MATCH = 3  # tokens that must be the same
LONGEST = 12  # tokens guessed at once


class Lookup:
    """Guesses for one request. `seen` is its prompt."""

    def __init__(self, seen: Sequence[int]) -> None:
        self.tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # where the text went on after these tokens, last
        self._length = 4
        for token in seen:
            self.push(token)

    def push(self, token: int) -> None:
        self.tokens.append(token)
        before = tuple(self.tokens[-MATCH - 1 : -1])
        if len(before) == MATCH:
            self._after[before] = len(self.tokens) - 1

    def guess(self, most: int) -> list[int]:
        """Up to `most` tokens that may come now; none where the last ones are new."""
        begin = self._after.get(tuple(self.tokens[-MATCH:]))
        length = min(self._length, most)
        return [] if begin is None or length < 1 else self.tokens[begin : begin + length]

    def learn(self, guessed: int, right: int) -> None:
        """How many of the guessed tokens were right: the next guess is longer where all were, else shorter."""
        self._length = min(2 * guessed, LONGEST) if right == guessed else max(1, right + 1)
