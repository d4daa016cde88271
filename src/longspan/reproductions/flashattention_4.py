"""FlashAttention-4's tricks that are not one GPU's, each switched off and on (2026, arXiv:2603.05451).

Exponentials by a polynomial instead of the exponential unit, rescaling only when it matters, the longest tiles first,
a deterministic backward; and the roofline that says what bounds it all.

The paper's numbers are a Blackwell GPU's pipelines; here the same algorithm runs in the CPU kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from longspan.errors import LongspanError
from longspan.reproductions._shares import seconds_of, sentence
from longspan.reproductions.harness import Figures, Run, Verdict, reproduce

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADS, KV_HEADS, DIM = 9, 3, 64  # SmolLM2's
FULL, QUICK = 4_096, 1_024  # tokens
ROUNDS, QUICK_ROUNDS = 5, 2
DEGREES = (2, 3, 4, 5, 6)
PRODUCTS, EXPONENTIALS = "roofline, products, ms", "roofline, exponentials, ms"
BF16 = 2.0**-9  # the largest relative error of rounding to bf16
OFF: dict[str, dict[str, Any]] = {
    "library": {"degree": 0},
    "always rescale": {"threshold": 0.0},
    "in order": {"longest_first": False},
}


def judge(seeds: Sequence[Figures]) -> Verdict:
    error = max(seed["error of degree 3"] for seed in seeds)
    skipped = min(seed["share of rescales skipped"] for seed in seeds)
    polynomial = [seed["gain over library"] for seed in seeds]
    sdpa = [seed["gain over SDPA"] for seed in seeds]
    changed = max(seed["error, threshold 8"] - seed["error, threshold 0"] for seed in seeds)
    reached, products, exponentials, differ = (
        sum(seed[name] for seed in seeds) / len(seeds)
        for name in ("share of the roofline", PRODUCTS, EXPONENTIALS, "gradients that differ")
    )
    said = (
        f"a polynomial of degree 3 errs by {error:.1e} at most (rounding to bf16 by {BF16:.1e}) and makes attention "
        f"{min(polynomial):.2f} to {max(polynomial):.2f} times as fast as the library's exponential; {skipped:.0%} of "
        f"rescales or more are skipped, which changes the result by {max(changed, 0):.0e}; {min(sdpa):.2f} to "
        f"{max(sdpa):.2f} times SDPA's speed, {reached:.0%} of the roofline, where products alone would take "
        f"{products:.0f} ms and exponentials {exponentials:.0f} ms; {differ:.0f} numbers of the gradients differ "
        f"between one worker and all"
    )
    if error > BF16 or max(polynomial) < 1 or changed > BF16 or differ:
        return Verdict("does not hold at this scale", sentence(said))
    if min(polynomial) > 1 and skipped >= 0.5 and min(sdpa) > 1:
        return Verdict("holds", sentence(said))
    return Verdict("inconclusive", sentence(said))


def plot(seeds: Sequence[Figures], figure: Figure) -> None:
    errors, gains = figure.subplots(1, 2)
    errors.semilogy(DEGREES, [max(seed[f"error of degree {d}"] for seed in seeds) for d in DEGREES], marker="o")
    errors.axhline(BF16, linestyle=":", color="grey", label="rounding to bf16")
    errors.set_xlabel("degree of the polynomial")
    errors.set_ylabel("largest relative error of 2^x")
    errors.legend()
    names = [*OFF, "SDPA"]
    for at, name in enumerate(names):
        gains.plot([at] * len(seeds), [seed[f"gain over {name}"] for seed in seeds], "o", color="C0")
    gains.axhline(1.0, linestyle=":", color="grey")
    gains.set_xticks(range(len(names)), names, rotation=20)
    gains.set_ylabel("speed with all tricks, over that without one")


@reproduce(
    slug="flashattention-4",
    title="FlashAttention-4: Algorithm and Kernel Pipelining Co-Design for Asymmetric Hardware Scaling",
    year=2026,
    paper="arXiv:2603.05451",
    claim=(
        "Where products have outgrown the exponential unit, exponentials by polynomials and rescaling only when it "
        "matters make attention faster, and no less exact than its type."
    ),
    setting=(
        f"The CPU kernels: causal attention of {FULL} tokens, {HEADS} query and {KV_HEADS} KV heads of {DIM} "
        f"dimensions, bf16, all threads; random queries and keys with the spread of a trained model's scores. Each "
        f"trick alone is switched off, in turns, three blocks of {ROUNDS} calls a seed; the ratio of the medians. The "
        f"roofline divides the operations by what this machine multiplies (fp32 or bf16, the faster) and exponentiates "
        f"in a second, measured before each seed."
    ),
    baseline=(
        "The same kernel with the C library's exp2f, rescaling at every new maximum, tiles in order; and torch's "
        "scaled_dot_product_attention."
    ),
    criterion=(
        "Does not hold if degree 3 errs by more than rounding to bf16 does, if the polynomial is slower in all seeds, "
        "if skipping changes the result by more than that rounding, or if gradients depend on the workers. Holds if "
        "the polynomial and the whole kernel are faster than the library's exponential and SDPA in all seeds and at "
        "least half of the rescales are skipped. Else inconclusive."
    ),
    judge=judge,
    plot=plot,
)
def measure(run: Run) -> Figures:
    """Errors of 2^x by degree, rescales skipped, errors of the attention, ratios of speed, roofline, gradients."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    from longspan import kernels
    from longspan.engine.roofline import measured_machine
    from longspan.kernels import native
    from longspan.kernels.native import Counters, Tuning

    if native.level() is None:
        raise LongspanError("The native kernels are missing: `longspan doctor` tells how to build them.")
    torch.manual_seed(run.seed)
    figures: Figures = {}
    x = -40 * torch.rand(1 << 20)
    exact = torch.exp2(x.double())
    for degree in DEGREES:
        figures[f"error of degree {degree}"] = float(((native.exp2(x, degree).double() - exact).abs() / exact).max())

    tokens = QUICK if run.quick else FULL
    q = 2 * torch.randn(1, HEADS, tokens, DIM).bfloat16()  # scores with a deviation of 2, as trained heads have
    k, v = torch.randn(2, 1, KV_HEADS, tokens, DIM).bfloat16()
    counters = Counters()
    kernels.attention(q, k, v, counters=counters)
    figures["share of rescales skipped"] = counters.skipped / max(counters.grew, 1)
    some = slice(0, 1024)
    wanted = sdpa(
        q[:, :, some].double(), k[:, :, some].double(), v[:, :, some].double(), is_causal=True, enable_gqa=True
    )
    for threshold in (0.0, 8.0):
        found, _ = kernels.attention(q[:, :, some], k[:, :, some], v[:, :, some], tuning=Tuning(threshold=threshold))
        figures[f"error, threshold {threshold:g}"] = float((found.double() - wanted).abs().max() / wanted.abs().max())

    runs: dict[str, Callable[[], Any]] = {"all": lambda: kernels.attention(q, k, v)}
    for name, tuning in OFF.items():
        runs[name] = partial(kernels.attention, q, k, v, tuning=Tuning(**tuning))
    runs["SDPA"] = lambda: sdpa(q, k, v, is_causal=True, enable_gqa=True)
    took = seconds_of(runs, QUICK_ROUNDS if run.quick else ROUNDS)
    for name in [*OFF, "SDPA"]:
        figures[f"gain over {name}"] = took[name] / took["all"]

    machines = [measured_machine(dtype) for dtype in (torch.float32, torch.bfloat16)]
    pairs = HEADS * tokens * (tokens + 1) / 2  # of queries and keys
    products = 4 * DIM * pairs / max(machine.products for machine in machines)
    exponentials = pairs / max(machine.exponentials for machine in machines)
    figures |= {PRODUCTS: 1e3 * products, EXPONENTIALS: 1e3 * exponentials, "reached, ms": 1e3 * took["all"]}
    figures["share of the roofline"] = max(products, exponentials) / took["all"]

    q, k, v = (x[:, :, : tokens // 2].detach().requires_grad_() for x in (q, k, v))
    ours = {workers: kernels.attention(q, k, v, workers=workers)[0] for workers in (1, None)}
    theirs = sdpa(q, k, v, is_causal=True, enable_gqa=True)
    grad = torch.randn_like(theirs)
    outs = {"one": ours[1], "all": ours[None], "SDPA": theirs}
    back = {name: partial(torch.autograd.grad, out, (q, k, v), grad, retain_graph=True) for name, out in outs.items()}
    alike = zip(back["one"](), back["all"](), strict=True)
    figures["gradients that differ"] = float(sum((a != b).sum() for a, b in alike))
    took = seconds_of(back, QUICK_ROUNDS if run.quick else ROUNDS)
    figures["gain over SDPA, backward"] = took["SDPA"] / took["all"]
    return figures
