"""Python strings may hold half of a surrogate pair; files, tokenizers and endpoints cannot."""

from __future__ import annotations


def replace_surrogates(text: str) -> str:
    """The text with "?" for each lone surrogate: as many characters, so that offsets stay."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
