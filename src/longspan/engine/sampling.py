"""What is asked of the choice of the next token. Without torch, so that what is above the engine loads fast."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 is greedy; the other limits apply only when sampling.

    `top_k` 0, `top_p` 1 and `min_p` 0 are off. The same `seed` gives the same text on the same machine.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
