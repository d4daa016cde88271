"""The gradient of attention, deterministic: no sum depends on the order in which threads arrive."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from longspan.kernels import native
from longspan.kernels.native import Tuning


class Attention(torch.autograd.Function):
    """The native kernels forward and back; `reference.gradients` is the same in torch.

    Not differentiable through lse, nor by sinks, nor a second time.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any], tuning: Tuning, workers: int | None
    ) -> tuple[Tensor, Tensor]:
        out, lse = native.attention(q, k, v, tuning=tuning, workers=workers, **options)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.options = options
        ctx.workers = workers
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        dq, dk, dv = native.gradients(q, k, v, out, lse, grad, workers=ctx.workers, **ctx.options)
        return dq, dk, dv, None, None, None
