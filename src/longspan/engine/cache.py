"""Keys and values while a text is read and continued: a cache that is allocated once and written in place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

from longspan.kernels.attention import rounded


class BufferLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values in buffers `[batch, kv heads, capacity, head dim]` that are written in place.

    A full buffer is replaced by one of twice the size, so `capacity` is a hint, not a limit.
    """

    is_sliding = False

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0
        self.held: tuple[Tensor, ...] = ()  # the whole buffers, of which the first `length` columns are in use

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.allocate((key_states, value_states))

    def allocate(self, like: Sequence[Tensor]) -> None:
        """Empty buffers for `capacity` tokens of these [batch, kv heads, any, …]."""
        self.held = tuple(
            torch.empty(*x.shape[:2], self.capacity, *x.shape[3:], dtype=x.dtype, device=x.device) for x in like
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, ...]:
        """Append `[batch, kv heads, new, head dim]`; returns views of everything held so far."""
        self.append((key_states, value_states))
        return tuple(x[:, :, : self.length] for x in self.held)

    def append(self, new: Sequence[Tensor]) -> None:
        """Write columns, as another layer held them, behind what this one holds."""
        begin = self.length
        self.reserve(new[0].shape[2], new)
        for to, x in zip(self.held, new, strict=True):
            to[:, :, begin : self.length] = x

    def reserve(self, new: int, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Count `new` tokens as held that somebody else will write; returns the whole buffers."""
        end = self.length + new
        if not self.is_initialized:
            self.capacity = max(self.capacity, end)
            self.allocate(like)
        if end > self.capacity:
            self.grow(max(end, 2 * self.capacity))
        self.length = end
        return self.held

    def grow(self, capacity: int) -> None:
        old, self.capacity = self.held, capacity
        self.allocate(old)
        for to, x in zip(self.held, old, strict=True):
            to[:, :, : self.length] = x[:, :, : self.length]

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only these rows of the batch."""
        self.held = tuple(x[rows] for x in self.held)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    def get_max_cache_shape(self) -> int:
        return -1


class Int8Layer(BufferLayer):
    """Keys and values rounded to int8, with a scale for each [batch, kv heads, capacity]: half of what bf16 takes."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, ...]:
        (keys, key_scales), (values, value_scales) = rounded(key_states), rounded(value_states)
        self.append((keys, values, key_scales, value_scales))
        return tuple(x[:, :, : self.length] for x in self.held)


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
    batch = Cache(layers=[type(layer)(max(capacity, length)) for layer in rows[0][0].layers])
    for i, layer in enumerate(batch.layers):
        layer.held = tuple(
            x.new_zeros(len(rows), x.shape[1], layer.capacity, *x.shape[3:]) for x in rows[0][0].layers[i].held
        )
        layer.length, layer.is_initialized = length, True
        for row, (cache, at, begin) in enumerate(rows):
            for to, x in zip(layer.held, cache.layers[i].held, strict=True):
                to[row, :, length - lengths[row] : length] = x[at, :, begin : cache.layers[i].length]
        for cache, _, _ in rows:
            cache.layers[i].held = ()  # so that there is one layer more than the batch at most
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
