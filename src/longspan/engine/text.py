"""Tokens to text while they come: whole characters only, and stopped at stop strings."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_BROKEN = "\ufffd"
_LONGEST_CHARACTER = 4  # bytes of UTF-8, so at most as many tokens


class TextStream:
    """The text of one request. `push` returns what may be shown now; `text` is everything shown so far.

    Held back: bytes that are not a character yet, and an end that may become a stop string. A stop string itself
    is never shown, and `stopped` is set when one is met.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.stop = tuple(s for s in stop if s)
        self.text = ""
        self.stopped = False
        self._tokens: list[int] = []
        self._context = 0  # decoding begins here, so that the tokenizer sees what comes before
        self._done = 0  # tokens before this one have become text
        self._held = ""

    def push(self, token: int) -> str:
        self._tokens.append(token)
        return self._show(self._decode(final=False), final=False)

    def finish(self) -> str:
        """What was held back, when no more tokens come. Bytes that never became a character are dropped."""
        if self.stopped:
            return ""
        return self._show(self._decode(final=True).rstrip(_BROKEN), final=True)

    def _decode(self, final: bool) -> str:
        before = self._plain(self._tokens[self._context : self._done])
        now = self._plain(self._tokens[self._context :])
        waiting = len(self._tokens) - self._done
        if now.endswith(_BROKEN) and waiting < _LONGEST_CHARACTER and not final:
            return ""
        self._context, self._done = self._done, len(self._tokens)
        return now[len(before) :]

    def _plain(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _show(self, new: str, final: bool) -> str:
        text = self._held + new
        found = [at for at in (text.find(s) for s in self.stop) if at >= 0]
        if found:
            self.stopped = True
            piece, self._held = text[: min(found)], ""
        else:
            keep = 0 if final else max((overlap(text, s) for s in self.stop), default=0)
            piece, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self.text += piece
        return piece


def overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
