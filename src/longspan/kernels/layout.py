"""Which blocks of keys each block of queries reads: the one type between patterns of attention and kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TILE = 64  # a layout's blocks consist of whole tiles of the kernels


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """`blocks` [B or 1, H or 1, query blocks, key blocks] (bool): True where a block of scores is computed.

    Block i holds the queries (or keys) `i * block` … `(i + 1) * block - 1` by their index in the tensor; `block` is a
    multiple of 64. Causality, windows and lengths still apply inside the blocks.
    """

    blocks: Tensor
    block: int = TILE

    def __post_init__(self) -> None:
        if self.block < TILE or self.block % TILE:
            raise ValueError(f"a layout's block must be a multiple of {TILE}, not {self.block}")
        if self.blocks.dtype != torch.bool or self.blocks.dim() != 4:
            raise ValueError(
                "a layout's blocks must be bool [batch or 1, heads or 1, query blocks, key blocks], "
                f"not {self.blocks.dtype} {list(self.blocks.shape)}"
            )

    def expand(self, rows: Tensor, keys: int) -> Tensor:
        """The layout for the queries `rows`, key by key: bool [B or 1, H or 1, rows, keys]."""
        columns = torch.arange(keys, device=rows.device) // self.block
        return self.blocks.to(rows.device)[:, :, (rows // self.block)[:, None], columns]
