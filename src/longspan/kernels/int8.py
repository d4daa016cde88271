"""Matrices in int8: how they are packed for the native kernels, and products with them.

A matrix has one scale for each row and 64 columns, the vectors that meet it one for each 64 of their numbers (both as
GGUF's Q8_0 has, with 32). Sums are of integers within these, so the only error is the rounding of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from longspan.kernels import native

GROUP, BLOCK = 64, 16  # columns with one scale, rows side by side (native/step.h)


def packed(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [out, in] as int8: values + 128 as uint8 [out / 16, in / 4, 16, 4] and scales [out / 16, in / 64, 16],
    zeros up to whole blocks of rows and groups of columns."""
    w = weight.detach().float()
    w = nn.functional.pad(w, (0, -w.shape[1] % GROUP, 0, -w.shape[0] % BLOCK))
    groups = w.view(w.shape[0], -1, GROUP)
    scales = groups.abs().amax(-1) / 127
    values = (groups / scales.clamp(min=1e-30)[..., None]).round_().add_(128).to(torch.uint8)
    values = values.view(w.shape[0] // BLOCK, BLOCK, -1, 4).transpose(1, 2).contiguous()
    return values, scales.view(w.shape[0] // BLOCK, BLOCK, -1).transpose(1, 2).contiguous()


class Int8Matrix:
    """A packed matrix of a linear layer, with its bias; `row` is what the native kernels know of it."""

    def __init__(self, linear: nn.Module) -> None:
        weight = cast(Tensor, linear.weight)
        bias = cast("Tensor | None", linear.bias)
        self.values, self.scales = packed(weight)
        self.bias = None if bias is None else bias.detach().float().contiguous()
        addresses = [0 if x is None else x.data_ptr() for x in (self.values, self.scales, self.bias)]
        self.row = [*addresses, *weight.shape]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scales.nbytes + (0 if self.bias is None else self.bias.nbytes)


class Int8Product:
    """Vectors x [..., in] times several matrices over the same vectors: [..., out] of each, of x's type.

    `rows` are those of `Int8Matrix`, which the caller keeps.
    """

    def __init__(self, rows: Sequence[list[int]]) -> None:
        self.rows = torch.tensor(rows, dtype=torch.int64)
        self.sizes = [row[3] for row in rows]

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        products = native.int8_products(x.reshape(-1, x.shape[-1]).float(), self.rows, self.sizes)
        return [y.to(x.dtype).view(*x.shape[:-1], -1) for y in products]


class Int8Linear(nn.Module):
    """In place of a linear layer, for inference on the CPU."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.matrix = Int8Matrix(linear)
        self.product = Int8Product([self.matrix.row])

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x)[0]
