"""Matrices in int8 and int4: how they are packed for the native kernels, and products with them.

- int8: one scale for each row and 64 columns (GGUF's Q8_0 has 32);
- int4: a scale and a least number, both fp16, for each row and 32 columns, as GGUF's Q4_1 has: a matrix that comes from
  such a file is the same again, to its last bit when it was loaded as fp32.

The vectors that meet them are rounded to int8, with one scale for each 64 or 32 of their numbers. Sums are of integers
within these, so the only error is the rounding of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from longspan.kernels import native

Weights = Literal["int8", "int4"]
BLOCK, COLUMNS = 16, 64  # rows side by side, columns that are packed together (native/step.h)
GROUP = {"int8": 64, "int4": 32}  # columns with one scale
TYPE = {"int8": native.TYPES[torch.int8], "int4": 3}  # native/attention.h


def packed_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [out, in] as int8: values + 128 as uint8 [out / 16, in / 4, 16, 4] and scales [out / 16, in / 64, 16],
    zeros up to whole blocks of rows and groups of columns."""
    w = weight.detach().float()
    w = pad(w, (0, -w.shape[1] % COLUMNS, 0, -w.shape[0] % BLOCK))
    groups = w.view(w.shape[0], -1, GROUP["int8"])
    scales = groups.abs().amax(-1) / 127
    values = (groups / scales.clamp(min=1e-30)[..., None]).round_().add_(128).to(torch.uint8)
    return blocks(values.view(w.shape[0], -1, 4)), blocks(scales)


def packed_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [out, in] as int4: values as uint8 [out / 16, in / 64, 8, 16, 4], 32 columns of 64 in the lower halves
    of the bytes and 32 in the upper ones; scales as int32 [out / 16, in / 32, 16], fp16 in the lower half, and in the
    upper one what 0 stands for. Rows are filled up with zeros, columns with the last one."""
    w = weight.detach().float()
    w = pad(w[None], (0, -w.shape[1] % COLUMNS), mode="replicate")[0]
    w = pad(w, (0, 0, 0, -w.shape[0] % BLOCK))
    groups = w.view(w.shape[0], -1, GROUP["int4"])
    least, most = groups.aminmax(dim=-1)
    values, scale, least = nearest(groups, (most - least) / 15, least)
    # Scale and least number that fit these values best; a group of one number keeps its own.
    mean, spread = values.mean(-1), values.var(-1, correction=0)
    slope = ((values - mean[..., None]) * groups).mean(-1) / spread.clamp(min=1e-9)
    scale, least = torch.where(spread > 0, slope, scale), torch.where(spread > 0, groups.mean(-1) - slope * mean, least)
    values, scale, least = nearest(groups, scale, least)
    half = values.to(torch.uint8).view(w.shape[0], -1, 2, GROUP["int4"] // 4, 4)
    bytes_ = half[:, :, 0] | half[:, :, 1] << 4
    both = torch.stack((scale, least), dim=-1).half().view(torch.int32).squeeze(-1)
    return blocks(bytes_), blocks(both)


def nearest(groups: Tensor, scale: Tensor, least: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The integers 0 … 15 nearest to what is in the groups [..., 32], and scale and least number as fp16 keeps them."""
    scale, least = scale.half().float(), least.half().float()
    values = (groups - least[..., None]) / scale[..., None].clamp(min=1e-30)
    return values.round_().clamp_(0, 15), scale, least


def blocks(rows: Tensor) -> Tensor:
    """[out, n], [out, n, 4] or [out, n, m, 4] as [out / 16, n, 16], [out / 16, n, 16, 4] or [out / 16, n, m, 16, 4]:
    what belongs to 16 rows lies side by side."""
    apart = rows.view(-1, BLOCK, *rows.shape[1:])
    return apart.movedim(1, max(2, apart.dim() - 2)).contiguous()


class QuantizedMatrix:
    """A packed matrix of a linear layer, with its bias; `row` is what the native kernels know of it."""

    def __init__(self, linear: nn.Module, weights: Weights) -> None:
        weight = cast(Tensor, linear.weight)
        bias = cast("Tensor | None", linear.bias)
        self.values, self.scales = (packed_int8 if weights == "int8" else packed_int4)(weight)
        self.bias = None if bias is None else bias.detach().float().contiguous()
        addresses = [0 if x is None else x.data_ptr() for x in (self.values, self.scales, self.bias)]
        self.row = [*addresses, *weight.shape, TYPE[weights]]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scales.nbytes + (0 if self.bias is None else self.bias.nbytes)


class QuantizedProduct:
    """Vectors x [..., in] times several matrices over the same vectors: [..., out] of each, of x's type.

    `rows` are those of `QuantizedMatrix`, which the caller keeps; the matrices are of one type.
    """

    def __init__(self, rows: Sequence[list[int]]) -> None:
        self.rows = torch.tensor(rows, dtype=torch.int64)
        self.sizes = [row[3] for row in rows]

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        products = native.products(x.reshape(-1, x.shape[-1]).float(), self.rows, self.sizes)
        return [y.to(x.dtype).view(*x.shape[:-1], -1) for y in products]


class QuantizedLinear(nn.Module):
    """In place of a linear layer, for inference on the CPU."""

    def __init__(self, linear: nn.Linear, weights: Weights = "int8") -> None:
        super().__init__()
        self.matrix = QuantizedMatrix(linear, weights)
        self.product = QuantizedProduct([self.matrix.row])

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x)[0]
