"""λ-RLM's two claims that a small model can show (Roy et al. 2026, arXiv:2603.20105): a bound that is never exceeded,
and answers that do not rot with the text's length.

The paper compares nine models on four tasks with a REPL whose code they write; the embedded model writes no code. What
is left of the claim is what makes the method: a program whose cost is known before it runs, and whose leaves are short
enough to be read right, whatever the length of the whole.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from longspan.evaluation.statistics import wilson
from longspan.reproductions.harness import Figures, Run, Verdict, reproduce

if TYPE_CHECKING:
    from inspect_ai.dataset import Sample
    from matplotlib.figure import Figure

    from longspan.llm import LocalLLM

MODEL = "smollm2"
FULL = (8_192, 32_768, 131_072)
QUICK = (16_384,)
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
QUICK_DEPTHS = (0.25, 0.75)
ANSWER_TOKENS = 40


def pooled(seeds: Sequence[Figures]) -> dict[str, float]:
    """Every figure summed over the seeds."""
    return {key: sum(seed[key] for seed in seeds) for key in (seeds[0] if seeds else {})}


def judge(seeds: Sequence[Figures]) -> Verdict:
    """The criterion, computed: see `reproduce` below."""
    sums = pooled(seeds)
    lengths = sorted(int(key.removeprefix("of ")) for key in sums if key.startswith("of "))
    longest, of = lengths[-1], sums[f"of {lengths[-1]}"]
    program, alone = (wilson(sums[f"right {way} {longest}"], of) for way in ("program", "alone"))
    exceeded = sum(sums[f"exceeded {length}"] for length in lengths)
    runs = sum(sums[f"of {length}"] for length in lengths)
    said = (
        f"{exceeded:g} of {runs:g} runs exceeded their bound; at {longest} tokens the program finds "
        f"{sums[f'right program {longest}']:g} of {of:g} (95 % {program[0]:.2f} to {program[1]:.2f}), the model alone "
        f"{sums[f'right alone {longest}']:g} (to {alone[1]:.2f})"
    )
    if exceeded or program[1] < alone[0]:
        return Verdict("does not hold at this scale", f"{_capital(said)}.")
    if program[0] > alone[1]:
        return Verdict("holds", f"{_capital(said)}.")
    return Verdict("inconclusive", f"Too few samples to tell: {said}.")


def plot(seeds: Sequence[Figures], figure: Figure) -> None:
    sums = pooled(seeds)
    lengths = sorted(int(key.removeprefix("of ")) for key in sums if key.startswith("of "))
    scores, costs = figure.subplots(1, 2)
    for way, label in (("program", "λ-RLM"), ("alone", "the model, window full")):
        shares = [sums[f"right {way} {n}"] / sums[f"of {n}"] for n in lengths]
        bounds = [wilson(sums[f"right {way} {n}"], sums[f"of {n}"]) for n in lengths]
        below = [share - low for share, (low, _) in zip(shares, bounds, strict=True)]
        above = [high - share for share, (_, high) in zip(shares, bounds, strict=True)]
        scores.errorbar(lengths, shares, yerr=[below, above], marker="o", capsize=3, label=label)
    for kind, label in (("bound", "bound"), ("tokens", "used")):
        costs.plot(lengths, [sums[f"{kind} {n}"] / sums[f"of {n}"] for n in lengths], marker="o", label=label)
    costs.plot(lengths, lengths, linestyle=":", color="grey", label="the text")
    for axes in (scores, costs):
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [f"{n // 1024}K" for n in lengths])
        axes.set_xlabel("length (tokens)")
        axes.legend()
    costs.set_yscale("log")
    costs.set_ylabel("tokens a question")
    scores.set_ylim(-0.03, 1.03)
    scores.set_ylabel("found (95 % interval)")


@reproduce(
    slug="lambda-rlm",
    title="The Y-Combinator for LLMs: Solving Long-Context Rot with λ-Calculus",
    year=2026,
    paper="arXiv:2603.20105",
    claim=(
        "Typed combinators with neural leaves answer over long texts where the model alone rots, with termination and "
        "a closed-form cost bound."
    ),
    setting=(
        f"SmolLM2-135M-Instruct, asked for an access code in real text (niah) of {', '.join(map(str, FULL))} tokens at "
        "five depths, one sample of each a seed; greedy decoding. Not compared: the RLM whose code the model writes, "
        "which this model cannot."
    ),
    baseline=(
        "The model alone with as much of the text as its window of 8192 tokens holds, from the beginning: more tokens "
        "than the program's bound."
    ),
    criterion=(
        "Does not hold if any run exceeds the bound in calls or tokens that was printed before it, or if the program "
        "surely finds fewer than the model alone at the longest length (Wilson, 95 %, over all seeds). Holds if no run "
        "exceeds its bound and the program surely finds more there. Else inconclusive."
    ),
    judge=judge,
    plot=plot,
)
def measure(run: Run) -> Figures:
    """By length: samples, found by program and model, runs beyond their bound, tokens bounded and used (sums). What was
    measured before an interruption is kept."""
    from longspan.evaluation.lengths import counter
    from longspan.evaluation.tasks.niah import one
    from longspan.llm import open_local

    llm = open_local(MODEL)
    count = counter(MODEL)
    figures: Figures = {}
    for length in QUICK if run.quick else FULL:
        kept = run.folder / f"{MODEL}-{length}-{run.seed}{'-quick' if run.quick else ''}.json"
        if not kept.is_file():
            run.tell(f"{length} tokens")
            depths = QUICK_DEPTHS if run.quick else DEPTHS
            samples = [one(length, depth, 1, "real", f"{run.seed}-0", count) for depth in depths]
            found = asyncio.run(_measured(samples, llm))
            unfinished = kept.with_suffix(".part")
            unfinished.write_text(json.dumps(found))
            unfinished.replace(kept)
        figures |= {f"{key} {length}": value for key, value in json.loads(kept.read_text()).items()}
    return figures


async def _measured(samples: Sequence[Sample], llm: LocalLLM) -> Figures:
    from longspan.corpus import Corpus
    from longspan.workflows import run

    keys = ("of", "right program", "right alone", "exceeded", "bound", "tokens")
    found: Figures = dict.fromkeys(keys, 0.0)
    for sample in samples:
        metadata: dict[str, Any] = sample.metadata or {}
        begin, end = metadata["context"]
        text = str(sample.input)[begin:end]
        answer = await run(metadata["question"], Corpus.from_texts({"text": text}), llm, "lambda-rlm")
        assert answer.trace is not None
        bound = next(step.output["bound"] for step in answer.trace.walk() if step.name == "plan")
        used, most = answer.usage.prompt_tokens + answer.usage.completion_tokens, bound["read"] + bound["written"]
        found["of"] += 1
        found["right program"] += all(target in answer.text for target in sample.target)
        alone = await _alone(sample, llm)
        found["right alone"] += all(target in alone for target in sample.target)
        found["exceeded"] += answer.usage.calls > bound["calls"] or used > most
        found["bound"] += most
        found["tokens"] += used
    return found


async def _alone(sample: Sample, llm: LocalLLM) -> str:
    """The model's reply to the prompt, its text cut after what the window holds."""
    metadata: dict[str, Any] = sample.metadata or {}
    prompt, (begin, end) = str(sample.input), metadata["context"]
    room = llm.window - ANSWER_TOKENS - llm.template_tokens
    starts = [start for start in llm.token_starts(prompt[:end]) if start >= begin]
    over = llm.count_tokens(prompt) - room
    if over > 0:
        prompt = prompt[: starts[-over - 4]] + prompt[end:]  # some tokens more, for the seam
    return (await llm.chat([{"role": "user", "content": prompt}], max_tokens=ANSWER_TOKENS)).text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
