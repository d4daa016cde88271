"""Any causal LM of transformers, by nothing but its public forward: the engine's path for what has no faster one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from longspan.engine.cache import is_plain, new_cache
from longspan.models.loading import kv_bytes_per_token


class Runner(Protocol):
    """What the engine asks of a model. `plain`: caches keep every token, so that rows can be batched and reused."""

    plain: bool

    @property
    def token_bytes(self) -> int:
        """Bytes of the keys and values of one token in its caches."""

    def release(self) -> None:
        """Let go of what the model holds and this does not need: the model computes nothing by itself after that."""

    def new_cache(self, capacity: int) -> Cache:
        """An empty cache with room for `capacity` tokens; it grows where more come."""

    def run(self, ids: Tensor, cache: Cache, *, starts: Sequence[int] | None = None, keep: int = 1) -> Tensor:
        """Append the tokens `ids` [rows, new] to the cache; the scores of the last `keep` of them [rows, keep,
        vocabulary]. Row r's text begins at column `starts[r]` of the cache: what is before is padding."""


class Plain:
    """A `Runner` over `model(...)`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.plain = is_plain(model)
        self.token_bytes = kv_bytes_per_token(model.config.get_text_config(decoder=True), model.dtype)
        self._last_only = "logits_to_keep" in inspect.signature(model.forward).parameters

    def release(self) -> None:
        pass

    def new_cache(self, capacity: int) -> Cache:
        return new_cache(self.model, capacity, self.plain)

    def run(self, ids: Tensor, cache: Cache, *, starts: Sequence[int] | None = None, keep: int = 1) -> Tensor:
        inputs: dict[str, object] = {"logits_to_keep": keep} if self._last_only else {}
        if starts is not None and any(starts):
            columns = torch.arange(cache.get_seq_length() + ids.shape[1], device=ids.device)
            positions = columns[None] - torch.tensor(starts, device=ids.device)[:, None]
            inputs["attention_mask"] = (positions >= 0).long()
            inputs["position_ids"] = positions[:, -ids.shape[1] :].clamp(min=0)
        logits: Tensor = self.model(input_ids=ids, past_key_values=cache, use_cache=True, **inputs).logits
        return logits[:, -keep:]
