"""The C++ kernels (native/): finding them, and handing them tensors.

They run on the CPU, in fp32 and bf16, at the best level that the processor has: portable, avx2, avx512,
avx512_bf16 or amx. `LONGSPAN_KERNELS` forces a lower level, or `torch` to do without them. Where longspan was installed
without a compiler they are missing, and the plain torch path runs.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from longspan.errors import UsageError
from longspan.kernels.layout import BlockLayout

_native: Any
try:
    _native = importlib.import_module("longspan.kernels._native")
except ImportError:  # not built, or built for another machine
    _native = None
INTERFACE = 8  # an editable installation may hold a build of older sources: that counts as none
if _native is not None and getattr(_native, "INTERFACE", None) != INTERFACE:
    _native = None

MAX_DIM = 256
MAX_WORKERS = 1024
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


@dataclass(frozen=True, slots=True)
class Tuning:
    """The tricks of FlashAttention-4, for measuring what each brings. Nobody else needs to touch them.

    `degree` of the polynomial for 2^x, 2 … 6, or 0 for the C library's exp2f; None takes 3 for bf16 and int8 (error
    7e-5, where bf16 rounds by 2e-3) and 5 for fp32. A row is rescaled when its maximum grew by more than `threshold`,
    in powers of two (FlashAttention-4 uses 8). `longest_first` starts the work items with the most tiles first.
    `bf16_products` multiplies bf16 in the forward pass as they are, where the level can; otherwise they become fp32.
    None does what is faster: Intel's AVX-512-BF16 has half the rate of its fp32.
    """

    degree: int | None = None
    threshold: float = 8.0
    longest_first: bool = True
    bf16_products: bool | None = None

    def __post_init__(self) -> None:
        if self.degree not in (None, 0, 2, 3, 4, 5, 6):
            raise ValueError(f"the polynomial's degree must be 0 or 2 to 6, not {self.degree}")
        if not 0 <= self.threshold <= 64:  # 2^64 is as much as sums in fp32 bear
            raise ValueError(f"the threshold for rescaling must be from 0 to 64, not {self.threshold}")


@dataclass(slots=True)
class Counters:
    """What a call did: how often a row's maximum `grew` and the rescale was `skipped`; key `tiles` of all workers and
    of the `busiest`."""

    grew: int = 0
    skipped: int = 0
    tiles: int = 0
    busiest: int = 0


def levels() -> tuple[str, ...]:
    """The levels that this build has and this processor runs, slowest first; none where the kernels are missing."""
    return tuple(_native.levels()) if _native else ()


def _chosen(name: str) -> int | None:
    """The index of the level to use; None for plain torch."""
    here = levels()
    if name in ("", "auto"):
        return len(here) - 1 if here else None
    if name == "torch":
        return None
    if name not in here:
        raise UsageError(
            f"LONGSPAN_KERNELS={name} is not a level of this machine: choose auto, torch"
            + "".join(f", {level}" for level in here)
            + "."
        )
    return here.index(name)


_level = _chosen(os.environ.get("LONGSPAN_KERNELS", ""))


def level() -> str | None:
    """The level in use; None where plain torch computes."""
    return None if _level is None else levels()[_level]


def multiplies_int8() -> bool:
    """Whether the level in use multiplies int8 as it is, which is then faster than anything else."""
    return _level is not None and bool(_native.multiplies_int8(_level))


@contextmanager
def using(name: str) -> Iterator[None]:
    """Use another level (or "torch") inside the block: for tests and benchmarks."""
    global _level
    before, _level = _level, _chosen(name)
    try:
        yield
    finally:
        _level = before


def takes(q: Tensor, v: Tensor) -> bool:
    """Whether the kernels compute attention of these (checked) tensors."""
    return (
        _level is not None
        and q.device.type == "cpu"
        and q.dtype in (torch.float32, torch.bfloat16)
        and q.shape[-1] <= MAX_DIM
        and v.shape[-1] <= MAX_DIM
    )


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    causal: bool,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    starts: Tensor | None = None,
    lengths: Tensor | None = None,
    layout: BlockLayout | None = None,
    decode: bool = False,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    tuning: Tuning = Tuning(),
    workers: int | None = None,
    counters: Counters | None = None,
) -> tuple[Tensor, Tensor]:
    """Arguments as in `longspan.kernels.attention`, checked there: nothing is checked here."""
    q, k, v = _rows(q), _rows(k), _rows(v)
    batch, heads, queries, _ = q.shape
    # Laid out as [B, Nq, H, Dv]: models join the heads next, and then need no copy.
    out = torch.empty(batch, queries, heads, v.shape[3], dtype=q.dtype).transpose(1, 2)
    lse = torch.empty(batch, heads, queries, dtype=torch.float32)
    if not out.numel():
        return out, lse
    options: dict[str, Any] = {"scale": scale, "causal": causal, "window": window, "softcap": softcap, "sinks": sinks}
    options |= {"starts": starts, "lengths": lengths, "layout": layout, "k_scale": k_scale, "v_scale": v_scale}
    told, kept = _told((q, k, v, out, lse), workers=workers, **options)
    degree = tuning.degree if tuning.degree is not None else 5 if k.dtype == torch.float32 else 3
    run = _native.decode_attention if decode else _native.attention
    grew, skipped, busiest, tiles = run(
        _level,
        told,
        degree,
        tuning.threshold,
        tuning.longest_first,
        -1 if tuning.bf16_products is None else int(tuning.bf16_products),
    )
    del kept
    if counters is not None:
        counters.grew, counters.skipped, counters.tiles, counters.busiest = grew, skipped, tiles, busiest
    return out, lse


def gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    grad: Tensor,
    *,
    workers: int | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by q, k and v where `grad` is that by `out`; `options` are those of the forward pass.

    The same numbers each time and for any number of workers.
    """
    q, k, v, grad = _rows(q), _rows(k), _rows(v), _rows(grad.to(q.dtype))
    found = [torch.zeros(x.shape, dtype=torch.float32) for x in (q, k, v)]
    if out.numel() and v.numel():
        inner = (grad.float() * out.float()).sum(-1).contiguous()
        told, kept = _told((q, k, v, grad, lse), workers=workers, **options)
        _native.attention_backward(_level, told, inner.data_ptr(), tuple(x.data_ptr() for x in found))
        del kept
    dq, dk, dv = (x.to(like.dtype) for x, like in zip(found, (q, k, v), strict=True))
    return dq, dk, dv


def _told(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    *,
    scale: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
    starts: Tensor | None,
    lengths: Tensor | None,
    layout: BlockLayout | None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    workers: int | None = None,
) -> tuple[tuple[Any, ...], tuple[Tensor | None, ...]]:
    """A call as native/module.cpp takes it, for q, k, v, the output (or what comes back by it) and lse; and the
    tensors whose addresses are in it, to be kept until it returns."""
    q, k, v, out, _ = tensors
    sinks = _plain(sinks, torch.float32)
    starts, lengths = _plain(starts, torch.int64), _plain(lengths, torch.int64)
    scales = [None if x is None else _rows(x.detach().float()) for x in (k_scale, v_scale)]
    blocks, strides = None, (0, 0, 0, 1)
    if layout is not None:
        blocks = layout.blocks.to("cpu").contiguous()
        b, h, rows, columns = blocks.shape
        strides = (rows * columns * h * (b > 1), rows * columns * (h > 1), columns, layout.block)
    told = (
        (TYPES[q.dtype], TYPES[k.dtype]),
        tuple(x.data_ptr() for x in tensors),
        tuple(stride for x in (q, k, v, out) for stride in x.stride()[:3]),
        (*q.shape[:2], k.shape[1], q.shape[2], k.shape[2], q.shape[3], v.shape[3]),
        causal,
        window or 0,
        (scale, softcap or 0.0),
        tuple(_address(x) for x in (sinks, starts, lengths)),
        tuple(_address(x) for x in scales),
        tuple(stride for x in scales for stride in ((0, 0) if x is None else x.stride()[:2])),
        _address(blocks),
        strides,
        min(workers or torch.get_num_threads(), MAX_WORKERS),
    )
    return told, (sinks, starts, lengths, *scales, blocks)


def step(
    types: tuple[int, int],
    model: tuple[int, ...],
    shape: tuple[int, ...],
    numbers: tuple[float, ...],
    head: int,
    cache: int,
    call: tuple[int, ...],
    size: tuple[int, ...],
) -> None:
    """One step of a Llama-like model, with the types of its weights outside of matrices and of its cache.

    `longspan.engine.llama` knows what the addresses and numbers are.
    """
    workers = min(torch.get_num_threads(), MAX_WORKERS)
    _native.step(_level, types, model, shape, numbers, head, cache, call, size, workers)


def products(x: Tensor, matrices: Tensor, outs: Sequence[int]) -> list[Tensor]:
    """Vectors x [tokens, in] (fp32), rounded to int8, times packed matrices of one type: [tokens, out] each.

    `matrices` holds a row of addresses, shape and type for each, as `longspan.kernels.quantized` makes them.
    """
    x = x.contiguous()
    ys = [torch.empty(len(x), out) for out in outs]
    workers = min(torch.get_num_threads(), MAX_WORKERS)
    _native.products(_level, matrices.data_ptr(), [y.data_ptr() for y in ys], x.data_ptr(), len(x), workers)
    return ys


def exp2(x: Tensor, degree: int) -> Tensor:
    """2^x by the polynomial of the kernels, fp32: to measure its error."""
    if _level is None:
        raise UsageError("The native kernels are missing or switched off: `longspan doctor` tells why.")
    degree = replace(Tuning(), degree=degree).degree or 0
    x = x.detach().to("cpu", torch.float32).contiguous()
    y = torch.empty_like(x)
    _native.exp2(_level, x.data_ptr(), y.data_ptr(), x.numel(), degree)
    return y


def _rows(x: Tensor) -> Tensor:
    """Elements of a row must be neighbours; all other strides are the kernels' business."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _plain(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if x is None else x.detach().to("cpu", dtype).contiguous()


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()
