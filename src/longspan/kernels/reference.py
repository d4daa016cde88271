"""Attention as it is written on paper, in plain torch and any floating type: what the kernels are tested against, and
what runs where none of them can.

Everything is computed from one boolean mask. Queries are taken in blocks, so that memory grows with the keys only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.kernels.layout import BlockLayout

ROWS = 512  # queries at a time


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
) -> tuple[Tensor, Tensor]:
    """(out [B, H, Nq, Dv], lse [B, H, Nq]) of q [B, H, Nq, D], k [B, Hkv, Nk, D], v [B, Hkv, Nk, Dv].

    Arguments as in `longspan.kernels.attention`. Half types are computed in fp32; lse is fp32, or fp64 for fp64.
    """
    batch, heads, queries, _ = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    wide = torch.promote_types(q.dtype, torch.float32)
    grouped = by_group(q.to(wide), kv_heads)
    k, v = k.to(wide)[:, :, None], v.to(wide)[:, :, None]
    outs, lses = [], []
    for begin in range(0, queries, ROWS):
        rows = torch.arange(begin, min(begin + ROWS, queries), device=q.device)
        seen = visible(rows, batch, queries, keys, causal, window, starts, lengths)[:, None]  # [B, 1, rows, Nk]
        if layout is not None:
            seen = seen & layout.expand(rows, keys)
        seen = by_group(seen.expand(-1, heads, -1, -1), kv_heads)
        scores = grouped[..., rows, :] @ k.transpose(-1, -2) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        scores = scores.masked_fill(~seen, -torch.inf)
        if sinks is not None:  # one more score a row, which has no value
            sink = sinks.to(wide).view(1, kv_heads, -1, 1, 1).expand(batch, -1, -1, len(rows), 1)
            lse = torch.cat([scores, sink], dim=-1).logsumexp(-1)
        else:
            lse = scores.logsumexp(-1)
        weights = torch.exp(scores - lse.masked_fill(lse == -torch.inf, 0)[..., None])  # empty rows: all weights 0
        outs.append((weights @ v).flatten(1, 2))
        lses.append(lse.flatten(1, 2))
    if not outs:
        return q.new_zeros(batch, heads, 0, v.shape[-1]), q.new_zeros(batch, heads, 0, dtype=wide)
    return torch.cat(outs, 2).to(q.dtype), torch.cat(lses, 2)


def gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    grad: Tensor,
    *,
    scale: float,
    causal: bool,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    starts: Tensor | None = None,
    lengths: Tensor | None = None,
    layout: BlockLayout | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by q, k and v where `grad` is that by `out`; sinks are in `lse` and have none of their own here.

    FlashAttention's backward (2205.14135, algorithm 4): the weights come again from scores and lse, and
    dS = P (dP - rowsum(dO * O)). Blocks of queries add to dk and dv in their order, so results repeat.
    """
    del sinks
    batch, heads, queries, _ = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    wide = torch.promote_types(q.dtype, torch.float32)
    q32, out32, grad32 = (by_group(x.to(wide), kv_heads) for x in (q, out, grad))
    k32, v32 = k.to(wide)[:, :, None], v.to(wide)[:, :, None]
    dq, dk, dv = torch.empty_like(q32), torch.zeros_like(k32), torch.zeros_like(v32)
    inner = (grad32 * out32).sum(-1, keepdim=True)
    base = by_group(lse.masked_fill(lse == -torch.inf, 0).to(wide), kv_heads)[..., None]
    for begin in range(0, queries, ROWS):
        rows = torch.arange(begin, min(begin + ROWS, queries), device=q.device)
        here = (Ellipsis, slice(begin, begin + len(rows)), slice(None))
        seen = visible(rows, batch, queries, keys, causal, window, starts, lengths)[:, None]
        if layout is not None:
            seen = seen & layout.expand(rows, keys)
        seen = by_group(seen.expand(-1, heads, -1, -1), kv_heads)
        scores = q32[here] @ k32.transpose(-1, -2) * scale
        slope = None
        if softcap is not None:
            bent = torch.tanh(scores / softcap)
            scores, slope = softcap * bent, 1 - bent * bent
        weights = torch.exp(scores - base[here]).masked_fill(~seen, 0)
        dv += (weights.transpose(-1, -2) @ grad32[here]).sum(2, keepdim=True)
        dscores = weights * (grad32[here] @ v32.transpose(-1, -2) - inner[here]) * scale
        if slope is not None:
            dscores = dscores * slope
        dq[here] = dscores @ k32
        dk += (dscores.transpose(-1, -2) @ q32[here]).sum(2, keepdim=True)
    return dq.flatten(1, 2).to(q.dtype), dk[:, :, 0].to(k.dtype), dv[:, :, 0].to(v.dtype)


def by_group(x: Tensor, kv_heads: int) -> Tensor:
    """[B, H, …] as [B, Hkv, H / Hkv, …]: the query heads that share a KV head side by side."""
    return x.reshape(x.shape[0], kv_heads, x.shape[1] // kv_heads, *x.shape[2:])


def visible(
    rows: Tensor,
    batch: int,
    queries: int,
    keys: int,
    causal: bool,
    window: int | None,
    starts: Tensor | None,
    lengths: Tensor | None,
) -> Tensor:
    """Which keys the queries `rows` see: bool [B, rows, Nk]. The last query stands at the sequence's last key."""
    device = rows.device
    start = torch.zeros(batch, 1, 1, dtype=torch.long, device=device) if starts is None else starts.view(-1, 1, 1)
    length = torch.full((batch, 1, 1), keys, device=device) if lengths is None else lengths.view(-1, 1, 1)
    key = torch.arange(keys, device=device)
    position = length - queries + rows[:, None]  # [B, rows, 1]
    seen = (key >= start) & (key < length) & torch.ones_like(position, dtype=torch.bool)
    if causal:
        seen = seen & (key <= position)
    if window is not None:
        seen = seen & (key > position - window) & (key < position + window)
    return seen


def merge(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """Partial attentions [parts, …, Dv] with log-sum-exp [parts, …] as one: softmax over the parts' lse weighs them."""
    lse = lses.logsumexp(0)
    weights = torch.exp(lses - lse.masked_fill(lse == -torch.inf, 0))
    return (weights[..., None] * outs.to(lses.dtype)).sum(0).to(outs.dtype), lse


def exp2(x: Tensor, degree: int) -> Tensor:
    """2^x as the kernels compute it: Cody-Waite reduction to f in [-1/2, 1/2] and a polynomial in f, in x's type."""
    n = torch.round(x)
    f = x - n
    y = torch.zeros_like(x)
    for c in reversed(EXP2[degree]):
        y = y * f + c
    return torch.ldexp(y, n.int())


# Coefficients of the smallest relative error on [-1/2, 1/2] (Remez), lowest power first; native/simd.h has the same.
EXP2 = {
    2: (1.00044314204, 0.703448006014, 0.238428935504),
    3: (0.999928073535, 0.693260985454, 0.242611122224, 0.0551716690926),
    4: (0.999999261447, 0.693121814743, 0.24024744825, 0.0559178603063, 0.00957010201463),
    5: (1.00000007165, 0.693146967065, 0.24022119724, 0.0555071327288, 0.00967554133102, 0.00132764721678),
    6: (
        1.00000000055,
        0.693147205737,
        0.240226468906,
        0.05550328777,
        0.00961848895652,
        0.00133999312095,
        0.000153458121587,
    ),
}
