"""How attention runs: `attention`, `decode_attention` and `merge`, native on CPUs and dispatched on CUDA.

Which keys are read is not decided here: callers give causality, windows, lengths or a `BlockLayout`.
`longspan.kernels.interface` makes them the attention of any transformers model.
"""

from longspan.kernels.attention import attention, decode_attention, merge, rounded
from longspan.kernels.layout import BlockLayout
from longspan.kernels.native import Counters, Tuning, level, levels, using

__all__ = [
    "BlockLayout",
    "Counters",
    "Tuning",
    "attention",
    "decode_attention",
    "level",
    "levels",
    "merge",
    "rounded",
    "using",
]
