"""Coding agents' claim at a size that this machine has: commands over files follow facts from place to place, where one
search does not, at any length ("Coding Agents are Effective Long-Context Processors", 2026, arXiv:2603.20432).

The paper runs agents of large models over benchmarks of up to three trillion tokens. Here the corpus, the sandbox and
the commands are real (grep over files); who decides on them is the simulated reader, as no model at hand writes
commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from longspan.reproductions._shares import (
    alone,
    answered,
    bounds,
    chain,
    draw_shares,
    draw_sums,
    lengths_axis,
    other_chains,
    pooled,
    sentence,
    sizes_of,
    spread,
)
from longspan.reproductions.harness import Figures, Run, Verdict, reproduce

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FULL, QUICK = (8_192, 32_768, 131_072), (32_768,)
SAMPLES, QUICK_SAMPLES = 3, 2
HOPS, OTHERS = 4, 20
WAYS = {"agent": "commands over files", "retrieve": "one search, best passages", "alone": "cut off at the window"}


def judge(seeds: Sequence[Figures]) -> Verdict:
    sums = pooled(seeds)
    longest = sizes_of(sums)[-1]
    agent, retrieve, cut = (bounds(sums, way, longest) for way in WAYS)
    of = sums[f"of {longest}"]
    said = (
        f"at {longest} tokens commands lead to the answer in {sums[f'right agent {longest}']:g} of {of:g} (95 % from "
        f"{agent[0]:.2f}), one search in {sums[f'right retrieve {longest}']:g} (to {retrieve[1]:.2f}), the window "
        f"alone in {sums[f'right alone {longest}']:g} (to {cut[1]:.2f}); the agent reads "
        f"{sums[f'tokens agent {longest}'] / of:.0f} tokens a question"
    )
    if agent[1] < max(retrieve[0], cut[0]):
        return Verdict("does not hold at this scale", sentence(said))
    if agent[0] > retrieve[1] and agent[0] > cut[1]:
        return Verdict("holds", sentence(said))
    return Verdict("inconclusive", f"Not surely better than both: {said}.")


def plot(seeds: Sequence[Figures], figure: Figure) -> None:
    sums = pooled(seeds)
    shares, costs = figure.subplots(1, 2)
    draw_shares(shares, sums, WAYS)
    draw_sums(costs, sums, "tokens", WAYS)
    costs.set_yscale("log")
    costs.set_ylabel("tokens a question")
    for axes in (shares, costs):
        lengths_axis(axes, sizes_of(sums))


@reproduce(
    slug="coding-agents",
    title="Coding Agents are Effective Long-Context Processors",
    year=2026,
    paper="arXiv:2603.20432",
    claim=(
        "Agents with shell and file tools process texts of any length better than attention over the window or "
        "retrieval."
    ),
    setting=(
        f"The simulated reader with SmolLM2-135M's error curve (simulated:smollm2) decides on real commands in the "
        f"sandbox: chains of {HOPS} variables among {OTHERS} others in real text of {', '.join(map(str, FULL))} "
        f"tokens, {SAMPLES} at each length and seed."
    ),
    baseline=(
        "The same reader with the best passages of one search (workflow retrieve), and alone over what its window of "
        "8192 tokens holds."
    ),
    criterion=(
        "Holds if at the longest length commands are surely right more often than both (Wilson, 95 %, over all seeds). "
        "Does not hold if they are surely right less often than either. Else inconclusive."
    ),
    judge=judge,
    plot=plot,
)
def measure(run: Run) -> Figures:
    """By length: samples, right by each way, and tokens (sums)."""
    from longspan.evaluation.lengths import counter
    from longspan.llm import SimulatedLLM

    count = counter("smollm2")
    llm = SimulatedLLM("smollm2", seed=run.seed)
    figures: Figures = {}
    for length in QUICK if run.quick else FULL:
        run.tell(f"{length} tokens")
        found: Figures = {"of": 0.0}
        found |= {f"{what} {way}": 0.0 for what in ("right", "tokens") for way in WAYS}
        for at in range(QUICK_SAMPLES if run.quick else SAMPLES):
            seed = f"{run.seed}-{at}-{length}"
            question, value, facts = chain(HOPS, seed)
            text = spread([*facts, *other_chains(OTHERS, seed)], length, seed, count)
            found["of"] += 1
            for way, answer in (
                ("agent", answered(question, text, llm, "coding-agent")),
                ("retrieve", answered(question, text, llm, "retrieve")),
                ("alone", alone(question, text, llm)),
            ):
                found[f"right {way}"] += value in answer.text
                found[f"tokens {way}"] += answer.usage.prompt_tokens + answer.usage.completion_tokens
        figures |= {f"{key} {length}": number for key, number in found.items()}
    return figures
