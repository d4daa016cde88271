"""Output held to a JSON schema while it is made, by llguidance."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from longspan.errors import LongspanError
from longspan.models.loading import LoadedModel


class Grammar:
    """A JSON schema compiled for one model's tokenizer; `start()` for each text to be held to it."""

    def __init__(self, schema: dict[str, Any], loaded: LoadedModel) -> None:
        try:
            source = LLMatcher.grammar_from_json_schema(json.dumps(schema), {"whitespace_flexible": False})
        except (ValueError, TypeError) as error:
            raise unsupported(str(error)) from error
        eos = tuple(sorted(loaded.stop_ids))
        if not eos:
            raise LongspanError(f"{loaded.name} has no end-of-text token, so its output cannot be held to a schema.")
        self.matcher = LLMatcher(ll_tokenizer(loaded.tokenizer, eos), source)
        if self.matcher.is_error():
            raise unsupported(self.matcher.get_error())

    def start(self) -> Constraint:
        return Constraint(self.matcher.deep_copy())


class Constraint:
    """How far one text has come through its grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        self.matcher = matcher

    def allowed(self, vocabulary: int) -> Tensor:
        """Which of the `vocabulary` tokens may come next: bool `[vocabulary]`."""
        bits = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8)
        mask = np.zeros(vocabulary, dtype=bool)
        found = np.unpackbits(bits, bitorder="little")[:vocabulary]
        mask[: len(found)] = found
        return torch.from_numpy(mask)

    def advance(self, token: int) -> bool:
        """Note the chosen token; true when the text is complete and nothing may follow."""
        if not self.matcher.consume_token(token):
            raise LongspanError(f"The schema cannot be followed any further: {self.matcher.get_error()}")
        return bool(self.matcher.is_stopped())


def unsupported(detail: str) -> LongspanError:
    return LongspanError(f"This JSON schema cannot be enforced: {detail.strip().splitlines()[0]}")


@lru_cache(maxsize=4)
def ll_tokenizer(tokenizer: PreTrainedTokenizerBase, eos: tuple[int, ...]) -> LLTokenizer:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise LongspanError("Schemas need a model with a fast tokenizer (tokenizer.json); this model has none.")
    return LLTokenizer(backend.to_str(), eos_token=list(eos))
