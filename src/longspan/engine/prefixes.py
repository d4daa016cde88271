"""What was read before is not read again: keys and values of earlier texts, by their tokens.

    root ── "You answer … <a long document>" ─┬─ "Who is Ann?" …
                                              └─ "Where is it?" …

In memory a radix tree (SGLang's RadixAttention, arXiv:2312.07104): texts that begin alike share the nodes of their
beginning; a node is a run of tokens with its keys and values; over the budget the leaf that was not used for longest
goes. On disk long texts as files, each with a checksum: one that is damaged is removed and read anew by the model.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers.cache_utils import Cache

Layers = tuple[tuple[Tensor, ...], ...]  # per layer what its cache holds: [1, kv heads, tokens, ...] each

log = logging.getLogger(__name__)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def cut_out(cache: Cache, row: int, begin: int, end: int) -> Layers:
    """A copy of what a row holds in the columns `begin` to `end`."""
    return tuple(tuple(x[row : row + 1, :, begin:end].clone() for x in layer.held) for layer in cache.layers)


@dataclass(slots=True, eq=False)
class Node:
    """A run of tokens after its parent's, and what the cache holds of them."""

    tokens: tuple[int, ...]
    layers: Layers
    parent: Node | None = None
    children: dict[int, Node] = field(default_factory=dict)  # by their first token
    used: int = 0

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for layer in self.layers for x in layer)


class Prefixes:
    """The tree, at most `max_bytes` of keys and values."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.root = Node((), ())
        self.nbytes = 0
        self._clock = 0

    def match(self, tokens: Sequence[int]) -> list[tuple[Node, int]]:
        """The nodes along `tokens` from the root, with how many tokens of each are shared."""
        self._clock += 1
        path, node, at = list[tuple[Node, int]](), self.root, 0
        while at < len(tokens) and (child := node.children.get(tokens[at])):
            shared = common_prefix(child.tokens, tokens[at : at + len(child.tokens)])
            child.used = self._clock
            path.append((child, shared))
            at += shared
            if shared < len(child.tokens):
                break
            node = child
        return path

    def shared(self, tokens: Sequence[int]) -> int:
        return sum(shared for _, shared in self.match(tokens))

    def fill(self, cache: Cache, tokens: Sequence[int], most: int) -> int:
        """Write what is known of the beginning of `tokens`, `most` at most, into an empty cache; how many tokens."""
        filled = 0
        for node, shared in self.match(tokens):
            take = min(shared, most - filled)
            if take:
                append(cache, tuple(tuple(x[:, :, :take] for x in layer) for layer in node.layers))
                filled += take
        return filled

    def add(self, cache: Cache, row: int, begin: int, tokens: Sequence[int]) -> None:
        """Keep what a row of a cache holds of `tokens`, which begin at column `begin`: the part that is not known."""
        path = self.match(tokens)
        known = sum(shared for _, shared in path)
        new = len(tokens) - known
        size = sum(x[:1, :, :1].nbytes for layer in cache.layers for x in layer.held)
        if not new or len(tokens) * size > self.max_bytes:
            return
        above = self.root
        if path:
            node, shared = path[-1]
            above = node if shared == len(node.tokens) else self._split(node, shared)
        layers = cut_out(cache, row, begin + known, begin + len(tokens))
        node = Node(tuple(tokens[known:]), layers, above, used=self._clock)
        above.children[node.tokens[0]] = node
        self.nbytes += node.nbytes
        self._drop(keep=node)

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node in two after `at` tokens; the first."""
        above = node.parent
        assert above is not None
        head, tail = (tuple(tuple(x[:, :, part].clone() for x in layer) for layer in node.layers)
                      for part in (slice(None, at), slice(at, None)))  # fmt: skip
        first = Node(node.tokens[:at], head, above, {node.tokens[at]: node}, node.used)
        above.children[first.tokens[0]] = first
        node.tokens, node.layers, node.parent = node.tokens[at:], tail, first
        return first

    def _drop(self, keep: Node) -> None:
        while self.nbytes > self.max_bytes:
            leaves = [node for node in self.nodes() if not node.children and node is not keep]
            if not leaves:
                return
            oldest = min(leaves, key=lambda node: node.used)
            assert oldest.parent is not None
            del oldest.parent.children[oldest.tokens[0]]
            self.nbytes -= oldest.nbytes

    def nodes(self) -> Iterator[Node]:
        waiting = list(self.root.children.values())
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.children.values()

    def clear(self) -> None:
        self.root, self.nbytes = Node((), ()), 0


def append(cache: Cache, layers: Layers) -> None:
    """Write one row's keys and values behind what a cache of one row holds."""
    for layer, held in zip(cache.layers, layers, strict=True):
        layer.append(held)


# -- on disk -----------------------------------------------------------------------------------------------------------

LEAST = 1024  # new tokens from which on a text is written to disk
DISK_BYTES = 4 << 30


class PrefixFiles:
    """Texts on disk, in `folder`, for one model (`key`: its weights, types and what computes them)."""

    def __init__(self, folder: Path, key: str, max_bytes: int = DISK_BYTES) -> None:
        self.folder, self.max_bytes = folder / key, max_bytes
        self.all = folder
        self._known: dict[Path, tuple[int, ...]] = {}

    def known(self) -> dict[Path, tuple[int, ...]]:
        """The tokens of every file."""
        for about in self.folder.glob("*.json"):
            if about not in self._known:
                try:
                    self._known[about] = tuple(json.loads(about.read_text(encoding="utf-8"))["tokens"])
                except (ValueError, KeyError, TypeError, OSError):
                    self._remove(about)
        return {about: tokens for about, tokens in self._known.items() if about.exists()}

    def shared(self, tokens: Sequence[int]) -> tuple[Path | None, int]:
        """The file that shares the longest beginning with `tokens`, and how long that is."""
        best: tuple[Path | None, int] = (None, 0)
        for about, kept in self.known().items():
            length = common_prefix(kept, tokens)
            if length > best[1]:
                best = about, length
        return best

    def fill(self, cache: Cache, tokens: Sequence[int], most: int, known: int) -> int:
        """Write what a file knows of the beginning of `tokens` into an empty cache of one row; how many tokens.

        A whole file is read for it, so nothing is where that would give less than `LEAST` tokens beyond the `known`.
        """
        from safetensors.torch import load

        if most - known < LEAST:
            return 0
        about, shared = self.shared(tokens)
        shared = min(shared, most)
        if about is None or shared - known < LEAST:
            return 0
        try:
            expected = json.loads(about.read_text(encoding="utf-8"))["crc32"]
            data = about.with_suffix(".safetensors").read_bytes()
            if zlib.crc32(data) != expected:
                raise ValueError("the checksum is another")
            held = load(data)
            count = len(held) // len(cache.layers)
            layers = [[held[f"{i}.{j}"][:, :, :shared] for j in range(count)] for i in range(len(cache.layers))]
        except Exception as error:  # noqa: BLE001  whatever is wrong with it, the model can read the text anew
            log.warning("A stored prefix was damaged (%s); it was removed, and the text is read anew.", error)
            self._remove(about)
            return 0
        os.utime(about)
        append(cache, tuple(tuple(x) for x in layers))
        return shared

    def add(self, cache: Cache, tokens: Sequence[int]) -> None:
        """Keep a cache of one row that holds `tokens`, where that is news of at least `LEAST` tokens."""
        from safetensors.torch import save

        if len(tokens) < LEAST or len(tokens) - self.shared(tokens)[1] < LEAST:
            return
        held = cut_out(cache, 0, 0, len(tokens))
        data = save({f"{i}.{j}": x.contiguous() for i, layer in enumerate(held) for j, x in enumerate(layer)})
        if len(data) > self.max_bytes:
            return
        name = f"{zlib.crc32(repr(tuple(tokens)).encode()):08x}-{len(tokens)}"
        about = self.folder / f"{name}.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(about.with_suffix(".safetensors"), data)
            _write(about, json.dumps({"tokens": list(tokens), "crc32": zlib.crc32(data)}).encode())  # last: it is whole
            self._drop(keep=about)
        except OSError as error:  # the answer does not depend on it
            log.warning("A prefix could not be kept on disk (%s).", error)

    def _drop(self, keep: Path) -> None:
        """Remove the files that were not used for longest, of any model, until the budget is kept."""
        files = sorted(self.all.glob("*/*.json"), key=lambda about: about.stat().st_mtime)
        sizes = {about: _size(about.with_suffix(".safetensors")) for about in files}
        for about in files:
            if sum(sizes.values()) <= self.max_bytes:
                return
            if about != keep:
                self._remove(about)
                del sizes[about]

    def _remove(self, about: Path) -> None:
        self._known.pop(about, None)
        for file in (about, about.with_suffix(".safetensors")):
            file.unlink(missing_ok=True)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _write(file: Path, data: bytes) -> None:
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(file)


def fingerprint(model: torch.nn.Module, *more: object) -> str:
    """A name for what a model computes: its weights' types, shapes and a sample of their values, and `more`."""
    import hashlib

    sample = hashlib.sha256(repr(more).encode())
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        some = flat[:: max(1, flat.numel() // 64)][:64].float().cpu()
        sample.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode() + some.numpy().tobytes())
    return sample.hexdigest()[:24]
