"""Attention on CUDA: flash-attn where it is installed and says all, else FlexAttention.

Written against their documented interfaces; it has not run on a GPU yet. FlexAttention's masks and scores are checked
against the reference on the CPU (tests/kernels/test_cuda.py).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from longspan.kernels.layout import BlockLayout


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
    """As `longspan.kernels.attention`, arguments checked there."""
    ragged = starts is not None or lengths is not None
    flash = _flash_attention(torch.cuda.get_device_capability(q.device)) if q.is_cuda else None
    if flash and not ragged and layout is None and q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] <= 256:
        out, lse = flash(q, k, v, scale=scale, causal=causal, window=window, softcap=softcap)
    else:
        out, lse = _flex(q, k, v, scale, softcap, mask_of(q, k, causal, window, starts, lengths, layout))
    if sinks is None:
        return out, lse
    # A sink adds exp(sink) to the sum, and no value.
    sink = sinks.to(lse.dtype).view(1, -1, 1)
    return (out * torch.sigmoid(lse - sink)[..., None]).to(out.dtype), torch.logaddexp(lse, sink)


@functools.cache
def _flash_attention(capability: tuple[int, int]) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """flash-attn's function for a device: 4 (CuTe) on Hopper and Blackwell, 3 on Hopper, 2 from Ampere on."""
    wanted = (("flash_attn.cute", 9), ("flash_attn_interface", 9), ("flash_attn", 8))
    for module, least in wanted:
        if capability[0] < least or importlib.util.find_spec(module.partition(".")[0]) is None:
            continue
        try:
            function = importlib.import_module(module).flash_attn_func
        except (ImportError, AttributeError):  # an older or broken installation
            continue
        return functools.partial(_call_flash, function, module)
    return None


def _call_flash(
    function: Callable[..., Any],
    module: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Their tensors are [batch, tokens, heads, dim], their windows (left, right) without the query itself."""
    four = module == "flash_attn.cute"
    none = None if four else -1
    left = none if window is None else window - 1
    kwargs: dict[str, Any] = {
        "softmax_scale": scale,
        "causal": causal,
        "window_size": (left, 0 if causal and window is not None else left),
        "softcap": softcap or 0.0,
        "return_lse" if four else "return_attn_probs": True,  # with it, the log-sum-exp comes second
    }
    out, lse, *_ = function(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), **kwargs)
    return out.transpose(1, 2), lse


def mask_of(
    q: Tensor,
    k: Tensor,
    causal: bool,
    window: int | None,
    starts: Tensor | None,
    lengths: Tensor | None,
    layout: BlockLayout | None,
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The keys that each query sees, as a FlexAttention mask_mod."""
    batch, heads, queries, _ = q.shape
    keys = k.shape[2]
    start = torch.zeros(batch, dtype=torch.long, device=q.device) if starts is None else starts.to(q.device)
    length = torch.full((batch,), keys, device=q.device) if lengths is None else lengths.to(q.device)
    blocks = None
    if layout is not None:
        blocks = layout.blocks.to(q.device).expand(batch, heads, -1, -1)

    def mask(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        position = length[b] - queries + i
        seen = (j >= start[b]) & (j < length[b])
        if causal:
            seen = seen & (j <= position)
        if window is not None:
            seen = seen & (j > position - window) & (j < position + window)
        if blocks is not None and layout is not None:
            seen = seen & blocks[b, h, i // layout.block, j // layout.block]
        return seen

    return mask


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def _flex(
    q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float | None, mask: Callable[..., Tensor]
) -> tuple[Tensor, Tensor]:
    from torch.nn.attention.flex_attention import AuxRequest, create_block_mask

    def capped(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap) if softcap is not None else score

    block_mask = create_block_mask(mask, q.shape[0], q.shape[1], q.shape[2], k.shape[2], device=str(q.device))
    out, aux = _compiled_flex()(
        q,
        k,
        v,
        score_mod=capped if softcap is not None else None,
        block_mask=block_mask,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
        return_aux=AuxRequest(lse=True),
    )
    return out, aux.lse
