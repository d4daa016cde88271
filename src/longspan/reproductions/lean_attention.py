"""LeanAttention's claim on this machine (Sanovar et al. 2024, arXiv:2405.10480): dividing the keys of all heads and
sequences evenly over the workers keeps every one busy, where a whole head a worker leaves some idle.

The paper's workers are an A100's and H100's multiprocessors; here they are a processor's cores. With few heads and
workers the same happens: one or three heads on two cores, or sequences of different lengths. Where the heads divide
evenly there is nothing to gain: that case is a control.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from longspan.errors import LongspanError
from longspan.reproductions._shares import seconds_of, sentence
from longspan.reproductions.harness import Figures, Run, Verdict, reproduce

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

DIM = 64
FULL, QUICK = (1_024, 8_192, 65_536, 524_288), (8_192, 65_536)
ROUNDS, QUICK_ROUNDS = 9, 5
# Query heads, KV heads, and the shares of the context that the sequences of a batch have.
UNEVEN: dict[str, tuple[int, int, tuple[float, ...]]] = {
    "1 head": (1, 1, (1.0,)),
    "9 heads on 3": (9, 3, (1.0,)),
    "ragged batch": (3, 1, (1.0, 0.25, 0.125, 0.125)),
}
CONTROL = {"64 heads on 16": (64, 16, (1.0,))}
CASES = UNEVEN | CONTROL


def judge(seeds: Sequence[Figures]) -> Verdict:
    longest = max(int(key.rpartition(" ")[2]) for key in seeds[0] if key.startswith("gain"))
    shortest = min(int(key.rpartition(" ")[2]) for key in seeds[0] if key.startswith("gain"))
    gains = {case: [seed[f"gain, {case}, {longest}"] for seed in seeds] for case in CASES}
    early = {case: [seed[f"gain, {case}, {shortest}"] for seed in seeds] for case in CASES}
    busy = min(seed[f"busy, {case}, {longest}"] for case in CASES for seed in seeds)
    fixed = ", ".join(f"{case} {statistics.median(gains[case]):.2f}" for case in UNEVEN)
    first = ", ".join(f"{statistics.median(early[case]):.2f}" for case in UNEVEN)
    control = ", ".join(f"{case} {statistics.median(gains[case]):.2f}" for case in CONTROL)
    sdpa = min(seed[f"gain over SDPA, {case}, {longest}"] for case in CASES for seed in seeds)
    said = (
        f"over {longest} keys even shares are {fixed} times as fast as a head a worker (at {shortest} keys {first}) "
        f"and where heads divide evenly {control}, workers are busy {busy:.0%} of the time or more, and SDPA is left "
        f"behind {sdpa:.1f} times or more"
    )
    surely = all(min(gains[case]) > 1.1 for case in UNEVEN) and all(min(gains[case]) > 0.9 for case in CONTROL)
    if busy < 0.9 or any(max(gains[case]) < 1 for case in UNEVEN):
        return Verdict("does not hold at this scale", sentence(said))
    if surely and sdpa > 1:
        return Verdict("holds", sentence(said))
    return Verdict("inconclusive", sentence(said))


def plot(seeds: Sequence[Figures], figure: Figure) -> None:
    gains, busy = figure.subplots(1, 2)
    lengths = sorted({int(key.rpartition(" ")[2]) for key in seeds[0] if key.startswith("gain")})
    for case in CASES:
        for axes, what in ((gains, "gain"), (busy, "busy")):
            values = [[seed[f"{what}, {case}, {n}"] for seed in seeds] for n in lengths]
            axes.plot(lengths, [statistics.median(each) for each in values], marker="o", label=case)
    for axes in (gains, busy):
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [f"{n // 1024}K" for n in lengths])
        axes.set_xlabel("keys")
        axes.legend()
    gains.axhline(1.0, linestyle=":", color="grey")
    gains.set_ylabel("speed over a head a worker")
    busy.set_ylabel("share of the time that workers are busy")
    busy.set_ylim(0, 1.05)


@reproduce(
    slug="lean-attention",
    title="Lean Attention: Hardware-Aware Scalable Attention Mechanism for the Decode-Phase of Transformers",
    year=2024,
    paper="arXiv:2405.10480",
    claim=(
        "Since partial softmaxes merge in any order, decoding attention can be cut into equal shares of all keys; "
        "every worker is busy whatever heads, batch and lengths, the more it pays the longer the context."
    ),
    setting=(
        "The CPU kernels on two cores, one query of bf16, heads of "
        f"{DIM} dimensions, {', '.join(map(str, FULL))} keys: {', '.join(CASES)}, the batch with four sequences of 1, "
        f"1/4, 1/8 and 1/8 of the keys. In turns, three blocks of {ROUNDS} calls a seed; the ratio of the medians."
    ),
    baseline=(
        "The same kernel, each KV head of each sequence whole on one worker, given out in order (as FlashAttention-2 "
        "does), at short contexts slowed by Python's threads; and torch's scaled_dot_product_attention over every "
        "sequence."
    ),
    criterion=(
        "Holds if at the longest context even shares are more than 1.1 times as fast in every case and seed, not 10 % "
        "slower where heads divide evenly, and faster than SDPA. Does not hold if workers are busy less than 90 % of "
        "the time there, or if a case is slower in all seeds. Else inconclusive."
    ),
    judge=judge,
    plot=plot,
)
def measure(run: Run) -> Figures:
    """By case and keys: ratios of speed, and the share of the time that workers are busy (by tiles)."""
    import torch

    from longspan import kernels
    from longspan.kernels import native
    from longspan.kernels.native import Counters

    if native.level() is None:
        raise LongspanError("The native kernels are missing: `longspan doctor` tells how to build them.")
    torch.manual_seed(run.seed)
    workers = torch.get_num_threads()
    figures: Figures = {}
    with ThreadPoolExecutor(workers) as pool:
        for keys in QUICK if run.quick else FULL:
            for case, (heads, kv_heads, shares) in CASES.items():
                run.tell(f"{keys} keys, {case}")
                batch = len(shares)
                lengths = torch.tensor([max(int(share * keys), 1) for share in shares])
                q = torch.randn(batch, heads, 1, DIM).bfloat16()
                k, v = (torch.empty(batch, kv_heads, keys, DIM, dtype=torch.bfloat16).normal_() for _ in range(2))
                counters = Counters()
                kernels.decode_attention(q, k, v, lengths, counters=counters)
                runs: dict[str, Callable[[], Any]] = {
                    "lean": partial(kernels.decode_attention, q, k, v, lengths),
                    "fixed": partial(fixed, q, k, v, lengths, workers, pool),
                    "SDPA": partial(each_by_sdpa, q, k, v, lengths),
                }
                took = seconds_of(runs, QUICK_ROUNDS if run.quick else ROUNDS)
                figures[f"gain, {case}, {keys}"] = took["fixed"] / took["lean"]
                figures[f"gain over SDPA, {case}, {keys}"] = took["SDPA"] / took["lean"]
                figures[f"busy, {case}, {keys}"] = counters.tiles / (workers * max(counters.busiest, 1))
    return figures


def each_by_sdpa(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> list[Tensor]:
    """torch's attention over every sequence."""
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    return [
        sdpa(q[b : b + 1], k[b : b + 1, :, :end], v[b : b + 1, :, :end], enable_gqa=True)
        for b, end in enumerate(lengths.tolist())
    ]


def fixed(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, workers: int, pool: ThreadPoolExecutor) -> Tensor:
    """A KV head of a sequence is one worker's: the units are given out in order, each worker takes every so many."""
    import torch

    from longspan import kernels

    group = q.shape[1] // k.shape[1]
    units = [(b, h) for b in range(k.shape[0]) for h in range(k.shape[1])]
    out = torch.empty_like(q)

    def work(worker: int) -> None:
        for b, h in units[worker::workers]:
            rows, end = slice(group * h, group * (h + 1)), int(lengths[b])
            own = (q[b : b + 1, rows], k[b : b + 1, h : h + 1, :end], v[b : b + 1, h : h + 1, :end])
            out[b, rows] = kernels.decode_attention(*own, workers=1)[0][0]

    list(pool.map(work, range(workers)))
    return out
