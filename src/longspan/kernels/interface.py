"""The kernels as attention of any transformers model: `attn_implementation="longspan"`.

Importing this module registers the name with transformers' AttentionInterface and AttentionMaskInterface. Masks that
the kernels know, causal, sliding or bidirectional with padding at the ends, are never built; where a model asks for
another one (packed sequences, image tokens, chunks, static caches), transformers builds it and its own attention runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function, sdpa_mask

from longspan.kernels import native
from longspan.kernels.attention import attention, decode_attention

NAME = "longspan"
DECODE_QUERIES = 4  # for so few queries, packing the keys costs more than it saves


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: query [B, H, Nq, D], key and value [B, Hkv, Nk, D] give [B, Nq, H, D].

    `attention_mask` is what `mask` returned: None, padding [B, Nk] or a built mask [B, 1, Nq, Nk].
    """
    causal = is_causal if is_causal is not None else bool(getattr(module, "is_causal", True))
    special = dropout > 0 or kwargs.get("position_bias") is not None or kwargs.get("cache") is not None
    built = attention_mask is not None and attention_mask.dim() == 4
    if special or built or not _fits(query, key, value):
        if softcap is None and s_aux is None:
            theirs: tuple[Tensor, None] = sdpa_attention_forward(
                module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs
            )
            return theirs
        return _eager(module, query, key, value, attention_mask, dropout, scaling, softcap, s_aux), None
    starts, lengths = ends(attention_mask) if attention_mask is not None else (None, None)
    wants_gradient = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    few = query.shape[2] <= DECODE_QUERIES and not wants_gradient
    out, _ = (decode_attention if few else attention)(
        query,
        key,
        value,
        causal=causal,
        window=sliding_window if causal else None,  # bidirectional windows come as a built mask
        scale=scaling,
        softcap=softcap,
        sinks=s_aux,
        starts=starts,
        lengths=lengths,
    )
    return out.transpose(1, 2).contiguous(), None


def mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> Tensor | None:
    """What `attention_forward` must be told of the mask: nothing (None), padding [B, Nk], or all of it, built."""

    def built() -> Tensor | None:
        whole: Tensor | None = sdpa_mask(
            batch_size=batch_size,
            q_length=q_length,
            kv_length=kv_length,
            q_offset=q_offset,
            kv_offset=kv_offset,
            mask_function=mask_function,
            attention_mask=attention_mask,
            device=device,
            **{**kwargs, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False},
        )
        return whole

    if native.level() is None and torch.device(device).type == "cpu":
        return built()
    causal = mask_function is causal_mask_function or _slides(mask_function)
    if not causal and mask_function is not bidirectional_mask_function:
        return built()
    # The kernels put the last query at the last key. A static cache has room behind it (and a tensor for an offset).
    if isinstance(q_offset, Tensor) or (causal and q_offset + q_length != kv_offset + kv_length):
        return built()
    if attention_mask is None:
        return None
    padding = attention_mask[:, kv_offset : kv_offset + kv_length]
    if padding.shape[1] != kv_length:
        return built()
    if bool(padding.all()):
        return None
    begin, end = ends(padding)
    if bool((padding.sum(1) != end - begin).any()):  # holes
        return built()
    if causal and bool((end != kv_length).any()):
        # Padding on the right: no query that matters sees it, if queries and keys are the same tokens.
        return None if q_length == kv_length and bool((begin == 0).all()) else built()
    return padding


def ends(padding: Tensor) -> tuple[Tensor, Tensor]:
    """Where the ones of each row [B, Nk] begin and end: two int64 [B]; 0 and 0 where there are none."""
    some = padding.any(1)
    begin = padding.int().argmax(1)
    end = padding.shape[1] - padding.flip(1).int().argmax(1)
    return begin * some, end * some


def _slides(mask_function: Callable[..., Any]) -> bool:
    """Whether this is transformers' causal sliding window, of which the attention function is told, too."""
    cells = [cell.cell_contents for cell in getattr(mask_function, "__closure__", None) or ()]
    parts = next((cell for cell in cells if isinstance(cell, tuple)), ())
    names = [getattr(part, "__qualname__", "") for part in parts]
    return names == ["sliding_window_overlay.<locals>.inner_mask", "causal_mask_function"]


def _fits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    if query.dtype != key.dtype or query.dtype != value.dtype:
        return False
    return native.takes(query, value) or query.is_cuda


def _eager(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float,
    scaling: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """The plain formula, for what neither the kernels nor SDPA can say: soft-capping or sinks with a built mask."""
    groups = query.shape[1] // key.shape[1]
    scores = query @ repeat_kv(key, groups).transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    if sinks is not None:
        scores = torch.cat([scores, sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)], dim=-1)
    weights = scores.float().softmax(-1).to(query.dtype)[..., : key.shape[2]]
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    out: Tensor = weights @ repeat_kv(value, groups)
    return out.transpose(1, 2).contiguous()


AttentionInterface.register(NAME, attention_forward)
AttentionMaskInterface.register(NAME, mask)
