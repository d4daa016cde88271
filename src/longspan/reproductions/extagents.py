"""ExtAgents' claim at a size that this machine has: with agents that read in parallel and share what they found, more
input than the window holds helps, where cutting it off or condensing it loses (Liu et al. 2025, arXiv:2505.21471).

The paper measures gpt-4o-mini and Llama-3.1 on its enhanced InfiniteBench, on HotpotQA and on surveys; neither the
models nor the data are at hand. The simulated reader stands for a model that writes, with errors that grow with the
length of its prompt as the embedded model's do; the embedded model itself looks for one code.
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
    other_chains,
    pooled,
    sentence,
    sizes_of,
    spread,
)
from longspan.reproductions.harness import Figures, Run, Verdict, reproduce

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from longspan.workflows import Answer

FULL, QUICK = (4_096, 16_384, 65_536), (16_384,)
SAMPLES, QUICK_SAMPLES = 6, 2
HOPS, OTHERS, CODES = 4, 20, 4
REAL, QUICK_REAL = (32_768, 131_072), (16_384,)
WAYS = {"agents": "ExtAgents", "reduce": "map-reduce", "alone": "cut off at the window"}


def judge(seeds: Sequence[Figures]) -> Verdict:
    sums = pooled(seeds)
    longest = sizes_of(sums)[-1]
    agents, reduce, cut = (bounds(sums, way, longest) for way in WAYS)
    of = sums[f"of {longest}"]
    said = (
        f"at {longest} tokens agents answer {sums[f'right agents {longest}']:g} of {of:g} (95 % from {agents[0]:.2f}), "
        f"map-reduce {sums[f'right reduce {longest}']:g} (to {reduce[1]:.2f}), the window alone "
        f"{sums[f'right alone {longest}']:g} (to {cut[1]:.2f}); {sums[f'waits agents {longest}'] / of:.1f} calls have "
        "to wait for one another"
    )
    if agents[1] < max(reduce[0], cut[0]):
        return Verdict("does not hold at this scale", sentence(said))
    if agents[0] > reduce[1] and agents[0] > cut[1]:
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
    slug="extagents",
    title="Scaling External Knowledge Input Beyond Context Windows of LLMs via Multi-Agent Collaboration",
    year=2025,
    paper="arXiv:2505.21471",
    claim=(
        "Seeking agents that share what they found and a reasoning agent that gets it little by little do better than "
        "other methods without training, within and beyond the window, and in parallel."
    ),
    setting=(
        f"The simulated reader with SmolLM2-135M's error curve (simulated:smollm2) over real text of "
        f"{', '.join(map(str, FULL))} tokens, {SAMPLES} chains of {HOPS} variables among {OTHERS} others, and "
        f"{SAMPLES} questions of {CODES} codes at each length and seed. Beside it, not judged: SmolLM2-135M itself, an "
        f"access code in real text of {', '.join(map(str, REAL))} tokens."
    ),
    baseline=(
        "The same reader by map-reduce (notes on every part, condensed), which reads as much, and alone over what its "
        "window of 8192 tokens holds."
    ),
    criterion=(
        "Holds if at the longest length agents are surely right more often than both (Wilson, 95 %, over all seeds). "
        "Does not hold if they are surely right less often than either. Else inconclusive."
    ),
    judge=judge,
    plot=plot,
)
def measure(run: Run) -> Figures:
    """By length: samples, right by each way, tokens, and calls that had to wait for one another (sums)."""
    from longspan.evaluation.lengths import counter
    from longspan.llm import SimulatedLLM

    count = counter("smollm2")
    llm = SimulatedLLM("smollm2", seed=run.seed)
    figures: Figures = {}
    for length in QUICK if run.quick else FULL:
        run.tell(f"{length} tokens, simulated")
        found: Figures = {"of": 0.0, "waits agents": 0.0}
        found |= {f"{what} {way}": 0.0 for what in ("right", "tokens") for way in WAYS}
        for at in range(QUICK_SAMPLES if run.quick else SAMPLES):
            seed = f"{run.seed}-{at}-{length}"
            for question, targets, facts in (of_chain(seed), of_codes(seed)):
                text = spread(facts, length, seed, count)
                answers = {
                    "agents": answered(question, text, llm, "extagents"),
                    "reduce": answered(question, text, llm, "map-reduce"),
                    "alone": alone(question, text, llm),
                }
                found["of"] += 1
                found["waits agents"] += waits(answers["agents"])
                for way, answer in answers.items():
                    found[f"right {way}"] += all(target in answer.text for target in targets)
                    found[f"tokens {way}"] += answer.usage.prompt_tokens + answer.usage.completion_tokens
        figures |= {f"{key} {length}": value for key, value in found.items()}
    return figures | _real(run)


def of_chain(seed: str) -> tuple[str, list[str], list[str]]:
    question, value, facts = chain(HOPS, seed)
    return question, [value], [*facts, *other_chains(OTHERS, seed)]


def of_codes(seed: str) -> tuple[str, list[str], list[str]]:
    """A question of several places' codes."""
    import random

    from longspan.evaluation.tasks.niah import MANY, NEEDLE, listed
    from longspan.evaluation.words import ADJECTIVES, NOUNS

    chance = random.Random(f"codes {seed}")
    places = [f"{a} {n}" for a, n in zip(chance.sample(ADJECTIVES, CODES), chance.sample(NOUNS, CODES), strict=True)]
    codes = [str(code) for code in chance.sample(range(10**6, 10**7), CODES)]
    facts = [NEEDLE.format(place=place, code=code) for place, code in zip(places, codes, strict=True)]
    return MANY.format(places=listed(places)), codes, facts


def waits(answer: Answer) -> int:
    """Calls that had to wait for one another: one a round of seeking, and each of the reasoning agent's."""
    assert answer.trace is not None
    steps = list(answer.trace.walk())
    seeking = [step for step in steps if step.name.startswith("seek, round")]
    parallel = sum(child.kind == "llm" for step in seeking for child in step.walk())
    return len(seeking) + sum(step.kind == "llm" for step in steps) - parallel


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
            found = dict.fromkeys(("real of", "real right agents", "real right alone"), 0.0)
            for depth in (0.5,) if run.quick else (0.2, 0.8):
                sample = one(length, depth, 1, "real", f"{run.seed}-0", counter("smollm2"))
                metadata = sample.metadata or {}
                begin, end = metadata["context"]
                text = str(sample.input)[begin:end]
                found["real of"] += 1
                for way, answer in (
                    ("agents", answered(metadata["question"], text, llm, "extagents")),
                    ("alone", alone(metadata["question"], text, llm, 40)),
                ):
                    found[f"real right {way}"] += all(target in answer.text for target in sample.target)
            kept.write_text(json.dumps(found))
        figures |= {f"{key} {length}": value for key, value in json.loads(kept.read_text()).items()}
    return figures
