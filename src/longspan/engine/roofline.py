"""How fast a model could run on this machine, and what share of that the engine reaches.

The analysis of FlashAttention-4 (2026) for any machine: what bounds attention is the slower of two units, the products
and the exponential; what bounds a step of decoding is the memory that it reads. So three rates are measured here and
now (products, exponentials, bytes), and a model's work is divided by them:

    prefill of n tokens:  2·n·P / products + Σ_layers max(4·h·d·n²/2 / products, h·n²/2 / exponentials)
    a decoding step at n: (weights + keys and values of n tokens) / bytes

with P the weights of the layers' matrices, h query heads of d dimensions. The bounds are of perfect overlap and reuse;
nothing reaches them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from longspan.engine.engine import Engine
from longspan.engine.llama import head_dim

SECONDS = 0.4  # that each rate is measured for
STEPS = 24  # decoding steps that are timed


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine does in a second, with all the threads that torch uses: operations (two a multiply-add) of
    products in the model's type, exponentials, and bytes read from memory."""

    products: float
    exponentials: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Line:
    """Tokens a second at a length: what the machine could do, and what the engine did."""

    what: str  # prefill or decode
    tokens: int
    bound: float
    measured: float

    @property
    def share(self) -> float:
        return self.measured / self.bound


def measured_machine(dtype: torch.dtype, *, int8: bool = False) -> Machine:
    """The three rates, each the best of several runs."""
    n = 1024
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    product: Callable[[], Any] = lambda: a @ b  # noqa: E731
    if int8:
        a8, b8 = (torch.randint(-127, 127, (n, n), dtype=torch.int8) for _ in range(2))
        product = lambda: torch._int_mm(a8, b8)  # noqa: E731
    x = torch.randn(1 << 18)
    memory = torch.ones(1 << 26)  # 256 MB, more than any cache
    return Machine(
        2 * n**3 / _seconds(product),
        x.numel() / _seconds(lambda: torch.exp(x)),
        memory.nbytes / _seconds(memory.sum),
    )


def _seconds(run: Callable[[], Any]) -> float:
    run()
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        begin = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begin)
    return best


@dataclass(frozen=True, slots=True)
class Work:
    """What a model has to do."""

    layers: int
    heads: int
    dim: int
    matrices: int  # weights of the layers' matrices
    weight_bytes: int  # read by a decoding step
    token_bytes: int  # keys and values of one token

    @classmethod
    def of(cls, engine: Engine) -> Work:
        model, config = engine.model, engine.model.config.get_text_config(decoder=True)
        heads, dim = config.num_attention_heads, head_dim(config)
        linears = (x for name, x in model.named_modules() if isinstance(x, nn.Linear) and ".layers." in name)
        inside = sum(x.in_features * x.out_features for x in linears)  # not by their weights: those may be let go of
        head = config.vocab_size * config.hidden_size
        # int8 has a scale of 4 bytes for 64 weights, int4 one for 32, and its head is int8.
        width = {None: model.dtype.itemsize, "int8": 17 / 16, "int4": 5 / 8}[engine.weights]
        weight_bytes = int(inside * width + head * max(width, 17 / 16))
        return cls(config.num_hidden_layers, heads, dim, inside, weight_bytes, engine.runner.token_bytes)

    def prefill(self, tokens: int, machine: Machine) -> float:
        """The least seconds for a prompt."""
        pairs = self.heads * tokens * tokens / 2
        attention = max(4 * self.dim * pairs / machine.products, pairs / machine.exponentials)
        return 2 * tokens * self.matrices / machine.products + self.layers * attention

    def step(self, tokens: int, machine: Machine) -> float:
        """The least seconds for one token after `tokens`."""
        return (self.weight_bytes + tokens * self.token_bytes) / machine.bytes


def roofline(engine: Engine, lengths: list[int]) -> tuple[Machine, list[Line]]:
    """The machine's rates, and bound and reached tokens a second for each length, prefill and decode."""
    machine = measured_machine(engine.model.dtype, int8=engine.weights is not None)
    work = Work.of(engine)
    lines: list[Line] = []
    for tokens in lengths:
        reading, writing = timed(engine, tokens)
        lines.append(Line("prefill", tokens, tokens / work.prefill(tokens, machine), tokens / reading))
        lines.append(Line("decode", tokens, 1 / work.step(tokens, machine), STEPS / writing))
    return machine, lines


@torch.inference_mode()
def timed(engine: Engine, tokens: int) -> tuple[float, float]:
    """Seconds in which the engine reads a prompt of `tokens`, and writes `STEPS` tokens after it."""
    runner = engine.runner
    ids = torch.arange(tokens)[None] % 1000 + 100
    cache = runner.new_cache(tokens + STEPS)
    begin = time.perf_counter()
    for at in range(0, tokens, engine.chunk):
        scores = runner.run(ids[:, at : at + engine.chunk], cache)
    read = time.perf_counter()
    for _ in range(STEPS):
        scores = runner.run(scores[:, -1].argmax(-1, keepdim=True), cache)
    return read - begin, time.perf_counter() - read
