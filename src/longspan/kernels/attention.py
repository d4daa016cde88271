"""Attention by the fastest means there are: the three public functions and the choice between implementations.

The choice follows device and type, never the caller: native C++ on CPUs (fp32, bf16), flash-attn or FlexAttention on
CUDA, plain torch for everything else.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from longspan.kernels import cuda, native, reference
from longspan.kernels.backward import Attention
from longspan.kernels.layout import BlockLayout
from longspan.kernels.native import MAX_WORKERS, Counters, Tuning


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    starts: Tensor | None = None,
    lengths: Tensor | None = None,
    layout: BlockLayout | None = None,
    tuning: Tuning = Tuning(),  # noqa: B008  it is frozen
    workers: int | None = None,
    counters: Counters | None = None,
) -> tuple[Tensor, Tensor]:
    """softmax(scale · q kᵀ) v over the keys that each query sees, and the log-sum-exp of its scores.

    `q` is [batch, heads, queries, dim], `k` [batch, kv heads, keys, dim] and `v` [batch, kv heads, keys, value dim], of
    one floating type, with any strides; `heads` is a multiple of `kv heads`, and query head h reads KV head
    h // (heads / kv heads). Returns `out` [batch, heads, queries, value dim] of q's type and `lse` [batch, heads,
    queries] (fp32; natural logarithm).

    Sequence b has the keys `starts[b]` … `lengths[b] - 1` (int64 [batch]; all by default), and its queries stand at the
    last of these: query i at position `lengths[b] - queries + i`. `causal` hides the keys behind that position;
    `window` hides those `window` or more away from it (on both sides where not causal, so that `window` keys are seen
    before and with the query itself). `layout` leaves out blocks of scores. A query that sees no key gets zeros and an
    lse of -inf.

    `k` and `v` may be int8 with `k_scale` and `v_scale` [batch, kv heads, keys] (fp32): key j is k[j] · k_scale[j].
    Queries are then rounded likewise, each with a scale of its own (`rounded`), and scores are computed in integers
    (as SageAttention does, 2410.02367; without its smoothing of keys); weights and values stay floating.

    `scale` is 1/√dim by default; `softcap` c makes c · tanh(score / c) of the scaled scores (Gemma 2); `sinks` [heads]
    are logits that take part in the softmax without a value (gpt-oss), and in lse.

    NaN and infinite scores give NaN in the rows that see them, as in torch; no check is made, because it would cost a
    pass over all tensors. The native result does not depend on the number of `workers` (threads; torch's by default).
    It can be differentiated once, by q, k and v, not by sinks nor through lse.

    Raises ValueError or TypeError for shapes, types and devices that do not fit together.
    """
    _check(q, k, v, k_scale, v_scale, window, softcap, sinks, starts, lengths, workers)
    _check_layout(layout, q, k)
    options: dict[str, Any] = {
        "scale": _scale(scale, q),
        "causal": causal,
        "window": window,
        "softcap": softcap,
        "sinks": sinks,
        "starts": starts,
        "lengths": lengths,
        "layout": layout,
    }
    if native.takes(q, v):
        if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
            if k_scale is not None:
                raise ValueError("attention over int8 keys has no gradient: detach the queries")
            out, lse = Attention.apply(q, k, v, options, tuning, workers)  # type: ignore[no-untyped-call]
            return out, lse
        return native.attention(
            q, k, v, k_scale=k_scale, v_scale=v_scale, tuning=tuning, workers=workers, counters=counters, **options
        )
    return _elsewhere(q, k, v, k_scale, v_scale, options)


def decode_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    *,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    starts: Tensor | None = None,
    tuning: Tuning = Tuning(),  # noqa: B008  it is frozen
    workers: int | None = None,
    counters: Counters | None = None,
) -> tuple[Tensor, Tensor]:
    """`attention` for one or a few queries a sequence against many keys: LeanAttention (2405.10480).

    Keys and values are read once, where they lie, for all query heads that share them. The tiles of all heads and
    sequences are divided evenly over the workers, whatever the batch, heads and lengths (stream-K); partial softmaxes
    are merged in the order of the keys, so that the result is the same for any number of workers.

    All as in `attention`, without its gradient.
    """
    _check(q, k, v, k_scale, v_scale, window, softcap, sinks, starts, lengths, workers)
    options: dict[str, Any] = {
        "scale": _scale(scale, q),
        "causal": causal,
        "window": window,
        "softcap": softcap,
        "sinks": sinks,
        "starts": starts,
        "lengths": lengths,
    }
    if native.takes(q, v):
        return native.attention(
            q,
            k,
            v,
            decode=True,
            k_scale=k_scale,
            v_scale=v_scale,
            tuning=tuning,
            workers=workers,
            counters=counters,
            **options,
        )
    return _elsewhere(q, k, v, k_scale, v_scale, options | {"layout": None})


def _elsewhere(
    q: Tensor, k: Tensor, v: Tensor, k_scale: Tensor | None, v_scale: Tensor | None, options: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Where the native kernels do not run."""
    dtype = q.dtype
    if k_scale is not None and v_scale is not None:
        whole, factor = rounded(q)
        wide = dtype if q.is_cuda else torch.float32
        q, k, v = ((x * s[..., None]).to(wide) for x, s in ((whole, factor), (k, k_scale), (v, v_scale)))
    out, lse = (cuda.attention if q.is_cuda else reference.attention)(q, k, v, **options)
    return out.to(dtype), lse


def rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors x [..., dim] as int8 [..., dim] times a scale each [...] (fp32): their largest number becomes ±127."""
    x = x.float()
    size = x.abs().amax(-1)
    inverse = torch.where(size > 1e-30, 127 / size, 0)
    return (x * inverse[..., None]).round_().to(torch.int8), size / 127


def merge(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over a union of disjoint sets of keys, from attention over each.

    `outs` [parts, …, dim] with `lses` [parts, …] (natural logarithm; -inf for a part without keys) become
    (out […, dim], lse […]). The operation is associative and commutative up to rounding. Sinks may be in one part only.
    """
    if outs.dim() < 1 or outs.shape[:-1] != lses.shape or not len(lses):
        raise ValueError(
            f"outs [parts, …, dim] and lses [parts, …] do not fit: {list(outs.shape)} and {list(lses.shape)}"
        )
    return reference.merge(outs, lses)


def _scale(scale: float | None, q: Tensor) -> float:
    if scale is None:
        return 1.0 / math.sqrt(max(1, q.shape[-1]))
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"the scale must be positive and finite, not {scale}")
    return scale


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
    starts: Tensor | None,
    lengths: Tensor | None,
    workers: int | None,
) -> None:
    int8 = isinstance(k, Tensor) and k.dtype == torch.int8
    for name, x in {"q": q, "k": k, "v": v}.items():
        if not isinstance(x, Tensor):  # callers without a type checker
            raise TypeError(f"{name} must be a tensor, not {type(x).__name__}")
        if x.dim() != 4:
            raise ValueError(f"{name} must be [batch, heads, tokens, dim], not {list(x.shape)}")
        if x.device != q.device:
            raise ValueError(f"{name} is on {x.device}, q on {q.device}: all tensors must be on one device")
        if x.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor, not {x.layout}")
    if not q.dtype.is_floating_point or (k.dtype, v.dtype) != ((torch.int8,) * 2 if int8 else (q.dtype,) * 2):
        kinds = "int8" if int8 else "of the same type"
        raise TypeError(f"q must be floating and k and v {kinds}, not {q.dtype}, {k.dtype}, {v.dtype}")
    for name, factor in (("k_scale", k_scale), ("v_scale", v_scale)):
        if (factor is not None) != int8:
            raise ValueError(f"{name} comes with int8 keys and values, and only with them")
        if factor is not None and (factor.shape != k.shape[:3] or factor.device != q.device):
            raise ValueError(f"{name} must be {list(k.shape[:3])} on {q.device}, not {list(factor.shape)}")
    batch, heads, _, dim = q.shape
    _, kv_heads, keys, _ = k.shape
    if k.shape[0] != batch or v.shape[:3] != k.shape[:3] or k.shape[3] != dim:
        raise ValueError(f"q, k and v do not fit together: {list(q.shape)}, {list(k.shape)}, {list(v.shape)}")
    if not kv_heads or heads % kv_heads:
        raise ValueError(f"{heads} query heads cannot share {kv_heads} KV heads: they must be a multiple")
    if window is not None and window < 1:
        raise ValueError(f"a window must be at least 1, not {window}")
    if softcap is not None and not (math.isfinite(softcap) and softcap > 0):
        raise ValueError(f"a softcap must be positive and finite, not {softcap}")
    if sinks is not None and sinks.shape != (heads,):
        raise ValueError(f"sinks must be [{heads}], one a head, not {list(sinks.shape)}")
    if workers is not None and not 1 <= workers <= MAX_WORKERS:
        raise ValueError(f"the number of workers must be from 1 to {MAX_WORKERS}, not {workers}")
    for name, ends in (("starts", starts), ("lengths", lengths)):
        if ends is not None and (ends.shape != (batch,) or ends.dtype not in (torch.int64, torch.int32)):
            raise ValueError(f"{name} must be integers [{batch}], not {ends.dtype} {list(ends.shape)}")
    if starts is not None or lengths is not None:
        first = starts.tolist() if starts is not None else [0] * batch
        last = lengths.tolist() if lengths is not None else [keys] * batch
        for b, (begin, end) in enumerate(zip(first, last, strict=True)):
            if not 0 <= begin <= end <= keys:
                raise ValueError(f"sequence {b} cannot have the keys {begin} to {end} of {keys}")


def _check_layout(layout: BlockLayout | None, q: Tensor, k: Tensor) -> None:
    if layout is None:
        return
    batch, heads, queries, _ = q.shape
    want = (-(-queries // layout.block), -(-k.shape[2] // layout.block))
    shape = layout.blocks.shape
    if shape[0] not in (1, batch) or shape[1] not in (1, heads) or tuple(shape[2:]) != want:
        raise ValueError(
            f"a layout of blocks of {layout.block} must be [1 or {batch}, 1 or {heads}, {want[0]}, {want[1]}], "
            f"not {list(shape)}"
        )
