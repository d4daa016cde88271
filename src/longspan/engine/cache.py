"""Keys and values: a preallocated cache for decoding, and a store of prefixes for the next call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Segment:
    """The keys and values of one run of tokens, from position 0: per layer `[1, kv heads, tokens, head dim]`."""

    tokens: tuple[int, ...]
    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def nbytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


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


def fill(cache: Cache, segment: Segment, tokens: int, rows: int = 1) -> None:
    """Write the first `tokens` tokens of a segment into every row of an empty cache."""
    for layer, (keys, values) in zip(cache.layers, segment.layers, strict=True):
        layer.update(keys[:, :, :tokens].expand(rows, -1, -1, -1), values[:, :, :tokens].expand(rows, -1, -1, -1))


def merge(caches: Sequence[Cache], capacity: int) -> Cache:
    """One left-padded batch out of single rows; padding holds zeros."""
    if len(caches) == 1:
        return caches[0]
    length = max(cache.get_seq_length() for cache in caches)
    merged = Cache(layers=[BufferLayer(max(capacity, length)) for _ in caches[0].layers])
    for i, layer in enumerate(merged.layers):
        first = caches[0].layers[i]
        heads, dims = first.keys.shape[1], (first.keys.shape[3], first.values.shape[3])
        shapes = [(len(caches), heads, layer.capacity, dim) for dim in dims]
        layer.keys = torch.zeros(shapes[0], dtype=first.keys.dtype, device=first.keys.device)
        layer.values = torch.zeros(shapes[1], dtype=first.values.dtype, device=first.values.device)
        layer.length, layer.is_initialized = length, True
        for row, cache in enumerate(caches):
            source = cache.layers[i]
            layer.keys[row, :, length - source.length : length] = source.keys[0, :, : source.length]
            layer.values[row, :, length - source.length : length] = source.values[0, :, : source.length]
            source.keys = source.values = torch.empty(0)  # free each row's buffer as soon as it is copied
    return merged


def cut_out(cache: Cache, row: int, begin: int, tokens: Sequence[int]) -> Segment:
    """A copy of what a row holds from column `begin` on, for `tokens`."""
    end = begin + len(tokens)
    layers = tuple(
        (layer.keys[row : row + 1, :, begin:end].clone(), layer.values[row : row + 1, :, begin:end].clone())
        for layer in cache.layers
    )
    return Segment(tuple(tokens), layers)


class PrefixStore:
    """Segments of recent sequences, the least recently used dropped first, bounded in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._segments: OrderedDict[tuple[int, ...], Segment] = OrderedDict()

    def longest(self, tokens: Sequence[int]) -> tuple[Segment | None, int]:
        """The stored segment that shares the longest prefix with `tokens`, and that prefix's length."""
        best, shared = None, 0
        for segment in self._segments.values():
            length = common_prefix(segment.tokens, tokens)
            if length > shared:
                best, shared = segment, length
        if best is not None:
            self._segments.move_to_end(best.tokens)
        return best, shared

    def add(self, segment: Segment) -> None:
        """Keep a segment; those that it extends are dropped."""
        if segment.nbytes > self.max_bytes:
            return
        longest, shared = self.longest(segment.tokens)
        if longest is not None and shared == len(segment.tokens):
            return  # held already
        for tokens in [t for t in self._segments if len(t) < len(segment.tokens) and segment.tokens[: len(t)] == t]:
            self.nbytes -= self._segments.pop(tokens).nbytes
        self._segments[segment.tokens] = segment
        self.nbytes += segment.nbytes
        while self.nbytes > self.max_bytes:
            _, dropped = self._segments.popitem(last=False)
            self.nbytes -= dropped.nbytes

    def clear(self) -> None:
        self._segments.clear()
        self.nbytes = 0


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
