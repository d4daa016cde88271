"""Keys and values while a text is read and continued: a cache that is allocated once and written in place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer


class BufferLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values in buffers `[batch, kv heads, capacity, head dim]` that are written in place.

    A full buffer is replaced by one of twice the size, so `capacity` is a hint, not a limit.
    """

    is_sliding = False

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0
        self.keys: Tensor
        self.values: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        def buffer(like: Tensor) -> Tensor:
            batch, heads, _, dim = like.shape
            return torch.empty(batch, heads, self.capacity, dim, dtype=like.dtype, device=like.device)

        self.keys, self.values = buffer(key_states), buffer(value_states)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append `[batch, kv heads, new, head dim]`; returns views of everything held so far."""
        if not self.is_initialized:
            self.capacity = max(self.capacity, key_states.shape[-2])
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        if end > self.capacity:
            self.grow(max(end, 2 * self.capacity))
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def reserve(self, batch: int, new: int, heads: int, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Count `new` tokens as held that somebody else will write; returns the whole buffers."""
        end = self.length + new
        if not self.is_initialized:
            self.capacity = max(self.capacity, end)
            like = torch.empty(batch, heads, 0, dim, dtype=dtype)
            self.lazy_initialization(like, like)
        if end > self.capacity:
            self.grow(max(end, 2 * self.capacity))
        self.length = end
        return self.keys, self.values

    @property
    def held(self) -> tuple[Tensor, ...]:
        """The whole buffers, of which the first `length` columns are in use."""
        return self.keys, self.values

    def append(self, held: Sequence[Tensor]) -> None:
        """Write what another layer held, cut to its columns, behind what this one holds."""
        self.update(held[0], held[1])

    def grow(self, capacity: int) -> None:
        old_keys, old_values = self.keys, self.values
        self.capacity = capacity
        self.lazy_initialization(old_keys, old_values)
        self.keys[:, :, : self.length] = old_keys[:, :, : self.length]
        self.values[:, :, : self.length] = old_values[:, :, : self.length]

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only these rows of the batch."""
        self.keys, self.values = self.keys[rows], self.values[rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    def get_max_cache_shape(self) -> int:
        return -1


def is_plain(model: PreTrainedModel) -> bool:
    """Whether every layer of the model keeps all keys and values (no sliding window, no recurrent state)."""
    layers = DynamicCache(config=model.config).layers
    return len(layers) > 0 and all(type(layer) is DynamicLayer for layer in layers)


def new_cache(model: PreTrainedModel, capacity: int, plain: bool) -> Cache:
    """An empty cache: preallocated for `capacity` tokens where the model allows it, else transformers' own."""
    if not plain:
        return DynamicCache(config=model.config)
    layers = model.config.get_text_config(decoder=True).num_hidden_layers
    return Cache(layers=[BufferLayer(capacity) for _ in range(layers)])


def joined(rows: Sequence[tuple[Cache, int, int]], capacity: int) -> tuple[Cache, list[int]]:
    """One left-padded batch of rows of other caches, each (cache, row, column where it begins), and the columns where
    they begin in it. Padding holds zeros. What the caches held is let go of."""
    if len(rows) == 1:
        return rows[0][0], [rows[0][2]]
    lengths = [cache.get_seq_length() - begin for cache, _, begin in rows]
    length = max(lengths)
    batch = Cache(layers=[BufferLayer(max(capacity, length)) for _ in rows[0][0].layers])
    for i, layer in enumerate(batch.layers):
        first = rows[0][0].layers[i].held
        layer.keys, layer.values = (x.new_zeros(len(rows), x.shape[1], layer.capacity, x.shape[3]) for x in first)
        layer.length, layer.is_initialized = length, True
        for row, (cache, at, begin) in enumerate(rows):
            for to, x in zip(layer.held, cache.layers[i].held, strict=True):
                to[row, :, length - lengths[row] : length] = x[at, :, begin : cache.layers[i].length]
        for cache, _, _ in rows:
            cache.layers[i].keys = cache.layers[i].values = first[0].new_empty(0)  # one layer more than the batch
    return batch, [length - each for each in lengths]


def trim(cache: Cache, tokens: int) -> None:
    """Forget the last tokens."""
    for layer in cache.layers:
        layer.length -= tokens


def free_bytes() -> float:
    """How much memory this machine can still give; infinite where it does not tell."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return float(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return float("inf")
