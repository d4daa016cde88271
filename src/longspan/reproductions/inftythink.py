"""InftyThink's claim at a size that this machine has: rounds with summaries keep what is in the window bounded at any
length, cost less than one long chain, and lose nothing (Yan et al. 2025, arXiv:2503.06692).

The paper fine-tunes models to reason so; none is at hand. What is shown is the paradigm over texts: a running state (a
chain of variables, a count) carried from round to round by the simulated reader, whose errors grow with the length of
its prompt as the embedded model's do; and a fact found by the embedded model itself.
"""

from __future__ import annotations

import json
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
    longest_prompt,
    pooled,
    sentence,
    sizes_of,
    spread,
)
from longspan.reproductions.harness import Figures, Run, Verdict, reproduce

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from longspan.workflows import Answer

FULL, QUICK = (4_096, 16_384, 65_536), (8_192,)
SAMPLES, QUICK_SAMPLES = 5, 2
HOPS, MENTIONS = 5, 9
REAL, QUICK_REAL = (8_192, 32_768), (8_192,)


def judge(seeds: Sequence[Figures]) -> Verdict:
    sums = pooled(seeds)
    longest = sizes_of(sums)[-1]
    rounds, one = bounds(sums, "rounds", longest), bounds(sums, "alone", longest)
    window = max(seed[f"peak rounds {longest}"] for seed in seeds)
    saved = sums[f"pairs chain {longest}"] / sums[f"pairs rounds {longest}"]
    said = (
        f"at {longest} tokens rounds give {sums[f'right rounds {longest}']:g} of {sums[f'of {longest}']:g} right (95 % "
        f"from {rounds[0]:.2f}), one chain over what the window holds {sums[f'right alone {longest}']:g} (to "
        f"{one[1]:.2f}); never more than {window:g} tokens in the window, and a chain of all would look at {saved:.1f} "
        f"times the pairs"
    )
    bounded = all(seed[f"peak rounds {size}"] <= seed["window"] for seed in seeds for size in sizes_of(sums))
    if not bounded or rounds[1] < one[0] or saved < 1:
        return Verdict("does not hold at this scale", sentence(said))
    if rounds[0] > one[1] and saved > 1:
        return Verdict("holds", sentence(said))
    return Verdict("inconclusive", f"Too few samples to tell: {said}.")


def plot(seeds: Sequence[Figures], figure: Figure) -> None:
    sums = pooled(seeds)
    shares, costs = figure.subplots(1, 2)
    draw_shares(shares, sums, {"rounds": "in rounds (simulated reader)", "alone": "one chain, window full"})
    draw_sums(costs, sums, "pairs", {"rounds": "in rounds", "chain": "one chain of all"})
    costs.set_yscale("log")
    costs.set_ylabel("pairs of positions looked at")
    for axes in (shares, costs):
        lengths_axis(axes, sizes_of(sums))


@reproduce(
    slug="inftythink",
    title="InftyThink: Breaking the Length Limits of Long-Context Reasoning in Large Language Models",
    year=2025,
    paper="arXiv:2503.06692",
    claim=(
        "Short rounds of reasoning, each begun from a summary, bound what is in the window at any depth and cut the "
        "cost of attention, without loss of accuracy."
    ),
    setting=(
        f"The simulated reader with SmolLM2-135M's error curve (simulated:smollm2) over real text of "
        f"{', '.join(map(str, FULL))} tokens: {SAMPLES} chains of {HOPS} variables and {SAMPLES} counts of {MENTIONS} "
        f"mentions at each length and seed. Beside it, not judged: SmolLM2-135M itself, an access code in real text of "
        f"{', '.join(map(str, REAL))} tokens. Not tried: models fine-tuned to the format."
    ),
    baseline="The same reader's one answer over as much of the text as its window of 8192 tokens holds.",
    criterion=(
        "Does not hold if any call reads and writes more than the effective window of 2048 tokens, if rounds are "
        "surely right less often than the one chain at the longest length (Wilson, 95 %, over all seeds), or if they "
        "look at more pairs of positions than one chain over the whole text would. Holds if all is bounded and rounds "
        "are surely right more often there. Else inconclusive."
    ),
    judge=judge,
    plot=plot,
)
def measure(run: Run) -> Figures:
    """By length: samples, right by rounds and by one chain, the window's peak, and pairs of positions (sums)."""
    from longspan.evaluation.lengths import counter
    from longspan.llm import SimulatedLLM

    count = counter("smollm2")
    llm = SimulatedLLM("smollm2", seed=run.seed)
    figures: Figures = {"window": float(llm.effective_window)}
    for length in QUICK if run.quick else FULL:
        run.tell(f"{length} tokens, simulated")
        found: Figures = dict.fromkeys(("of", "right rounds", "right alone", "pairs rounds", "pairs chain"), 0.0)
        found["peak rounds"] = 0.0
        for at in range(QUICK_SAMPLES if run.quick else SAMPLES):
            for question, targets, facts in (of_chain(f"{run.seed}-{at}"), of_count(at)):
                text = spread(facts, length, f"{run.seed}-{at}-{length}", count)
                told = answered(question, text, llm, "inftythink")
                found["of"] += 1
                found["right rounds"] += right(told.text, targets)
                found["right alone"] += right(alone(question, text, llm).text, targets)
                found["peak rounds"] = max(found["peak rounds"], *map(sum, rounds_of(told)), longest_prompt(told))
                found["pairs rounds"] += sum(half_square(sum(each)) for each in rounds_of(told))
                found["pairs chain"] += half_square(length + sum(written for _, written in rounds_of(told)))
        figures |= {f"{key} {length}": value for key, value in found.items()}
    return figures | _real(run)


def of_chain(seed: str) -> tuple[str, list[str], list[str]]:
    _, value, facts = chain(HOPS, seed)
    names = [fact.split()[1] for fact in facts]
    return f"Which variables hold the value {value}?", names, facts


def of_count(at: int) -> tuple[str, list[str], list[str]]:
    mentions = MENTIONS + at % 3
    return 'How many times is the word "zeppelin" mentioned?', [str(mentions)], ["A zeppelin came."] * mentions


def right(answer: str, targets: Sequence[str]) -> bool:
    """All that was asked for and nothing else of its kind."""
    words = answer.replace(".", " ").replace("=", " ").split()
    return all(target in words for target in targets)


def rounds_of(answer: Answer) -> list[list[int]]:
    assert answer.trace is not None
    rounds: list[list[int]] = next(step for step in answer.trace.walk() if step.name == "rounds").output["rounds"]
    return rounds


def half_square(tokens: float) -> float:
    return tokens * (tokens + 1) / 2


def _real(run: Run) -> Figures:
    """The embedded model, finding one code; kept a length at a time."""
    from longspan.evaluation.lengths import counter
    from longspan.evaluation.tasks.niah import one
    from longspan.llm import open_local

    llm = open_local("smollm2")
    figures: Figures = {}
    for length in QUICK_REAL if run.quick else REAL:
        kept = run.folder / f"real-{length}-{run.seed}{'-quick' if run.quick else ''}.json"
        if not kept.is_file():
            run.tell(f"{length} tokens, SmolLM2")
            found = dict.fromkeys(("real of", "real right rounds", "real right alone", "real peak rounds"), 0.0)
            for depth in (0.5,) if run.quick else (0.2, 0.8):
                sample = one(length, depth, 1, "real", f"{run.seed}-0", counter("smollm2"))
                metadata = sample.metadata or {}
                begin, end = metadata["context"]
                text = str(sample.input)[begin:end]
                told = answered(metadata["question"], text, llm, "inftythink")
                found["real of"] += 1
                found["real right rounds"] += all(target in told.text for target in sample.target)
                said = alone(metadata["question"], text, llm, 40).text
                found["real right alone"] += all(target in said for target in sample.target)
                found["real peak rounds"] = max(found["real peak rounds"], longest_prompt(told))
            kept.write_text(json.dumps(found))
        figures |= {f"{key} {length}": value for key, value in json.loads(kept.read_text()).items()}
    return figures
