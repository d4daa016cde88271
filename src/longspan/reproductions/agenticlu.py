"""AgenticLU's claim at a size that this machine has: searching a tree of clarifications, each with its own context,
raises how often an answer of the tree is right, the more the wider it is (Zhuang et al. 2025, arXiv:2502.15920: 97.8 %
on NarrativeQA at depth 3 and width 8). The training on such trees is not tried here; `longspan dataset agenticlu` makes
its data.

What the tree does is shown with a simulated reader that errs in one call of five. The embedded model, which is not
trained to clarify, answers RULER's questions beside it; no verdict rests on that.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from longspan.reproductions._shares import bounds, chain, draw_shares, other_chains, pooled, sentence, sizes_of, spread
from longspan.reproductions.harness import Figures, Run, Verdict, reproduce

if TYPE_CHECKING:
    from inspect_ai.dataset import Sample
    from matplotlib.figure import Figure

    from longspan.corpus import Corpus
    from longspan.llm import LLM

WIDTHS = (1, 2, 4, 8)
DEPTH = 3
HOPS = 4
RIGHT = 0.8  # of the simulated reader's calls, whatever their length
LENGTH = 8_192
SAMPLES, QUICK_SAMPLES = 12, 4
QUICK_WIDTHS = (1, 2)
REAL_TASKS = ("ruler-qa-1", "ruler-qa-2")
REAL_SAMPLES, REAL_WIDTH = 3, 8
WAYS = {"tree": "an answer of the tree", "sampled": "as many samples without clarifying"}


def judge(seeds: Sequence[Figures]) -> Verdict:
    sums = pooled(seeds)
    widest, narrowest = sizes_of(sums)[-1], sizes_of(sums)[0]
    tree, one, sampled = bounds(sums, "tree", widest), bounds(sums, "tree", narrowest), bounds(sums, "sampled", widest)
    real = ""
    if sums["real of"]:
        real = (
            f"; the embedded model's tree holds the answer to {sums['real right tree']:g} of {sums['real of']:g} "
            f"questions, its samples to {sums['real right sampled']:g}"
        )
    said = (
        f"with {widest} clarifications a step the simulated reader's tree holds the answer to "
        f"{sums[f'right tree {widest}']:g} of {sums[f'of {widest}']:g} questions (95 % from {tree[0]:.2f}), with "
        f"{narrowest} to {sums[f'right tree {narrowest}']:g} (to {one[1]:.2f}), as many samples without clarifying to "
        f"{sums[f'right sampled {widest}']:g} (to {sampled[1]:.2f}){real}"
    )
    if tree[0] > one[1] and tree[0] > sampled[1]:
        return Verdict("holds", sentence(said))
    if tree[1] < max(one[0], sampled[0]):
        return Verdict("does not hold at this scale", sentence(said))
    return Verdict("inconclusive", f"Not surely more: {said}.")


def plot(seeds: Sequence[Figures], figure: Figure) -> None:
    sums = pooled(seeds)
    axes = figure.subplots()
    draw_shares(axes, sums, WAYS)
    axes.set_xlabel("clarifications sampled at each step (width of the tree)")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes_of(sums), [str(size) for size in sizes_of(sums)])


@reproduce(
    slug="agenticlu",
    title="Self-Taught Agentic Long Context Understanding",
    year=2025,
    paper="arXiv:2502.15920",
    claim=(
        "A tree search over self-clarifications with pointback contains the right answer far more often than one "
        "chain, the more the wider it is."
    ),
    setting=(
        f"A simulated reader that is right in {RIGHT:.0%} of its calls follows a chain of {HOPS} variables in real "
        f"text of {LENGTH} tokens, {SAMPLES} questions a seed: whole trees {DEPTH} deep, {WIDTHS[0]} to {WIDTHS[-1]} "
        "clarifications sampled at each step. Beside it SmolLM2-135M-Instruct on "
        f"{' and '.join(REAL_TASKS)}, {REAL_SAMPLES} questions of each a seed, {REAL_WIDTH} clarifications, one step. "
        "Not tried: the trained model."
    ),
    baseline=(
        "As many answers of the same reader to the question itself as the tree has steps, from the passages that the "
        "question points back to."
    ),
    criterion=(
        "By the simulated reader alone. Holds if the widest tree surely holds the answer more often than one chain and "
        "than as many samples (95 % intervals of Wilson apart, over all seeds). Does not hold if one of them is surely "
        "right more often. Else inconclusive."
    ),
    judge=judge,
    plot=plot,
)
def measure(run: Run) -> Figures:
    """By width: questions, and those for which the tree, or as many samples, hold the answer (sums)."""
    widths = QUICK_WIDTHS if run.quick else WIDTHS
    figures: Figures = {f"{key} {width}": 0.0 for width in widths for key in ("of", "right tree", "right sampled")}
    figures |= {"real of": 0.0, "real right tree": 0.0, "real right sampled": 0.0}
    _simulated(run, figures, widths)
    if not run.quick:
        _real(run, figures)
    return figures


def _simulated(run: Run, figures: Figures, widths: Sequence[int]) -> None:
    from longspan.corpus import Corpus
    from longspan.evaluation.lengths import counter
    from longspan.llm import SimulatedLLM
    from longspan.llm.simulated import Curve, Profile

    unsure = Profile(LENGTH, LENGTH, Curve(((0, RIGHT),)))
    number = QUICK_SAMPLES if run.quick else SAMPLES
    for at in range(number):
        seed = f"agenticlu {run.seed} {at}"
        question, value, facts = chain(HOPS, seed)
        text = spread([*facts, *other_chains(20, seed)], LENGTH, seed, counter("smollm2"))
        corpus = Corpus.from_texts({"text": text})
        for width in widths:
            kept = run.folder / f"{run.seed}-{at}-{width}.json"
            if not kept.is_file():
                run.tell(f"question {at + 1} of {number}, width {width}")
                reader = SimulatedLLM("unsure", profile=unsure, seed=1000 * run.seed + at)
                answers = asyncio.run(_answers(question, corpus, reader, run.seed, width, DEPTH))
                kept.write_text(json.dumps({way: any(value in each for each in said) for way, said in answers.items()}))
            figures[f"of {width}"] += 1
            for way, right in json.loads(kept.read_text()).items():
                figures[f"right {way} {width}"] += right


def _real(run: Run, figures: Figures) -> None:
    from longspan.evaluation.compare import make_task
    from longspan.llm import open_local

    llm = open_local("smollm2")
    for task in REAL_TASKS:
        arguments = {"lengths": LENGTH, "samples": REAL_SAMPLES, "seed": run.seed, "tokenizer": "smollm2"}
        for at, sample in enumerate(make_task(task, arguments).dataset):
            kept = run.folder / f"{task}-{run.seed}-{at}.json"
            if not kept.is_file():
                run.tell(f"{task}, question {at + 1} of {REAL_SAMPLES}")
                kept.write_text(json.dumps(_of_sample(sample, llm, run.seed)))
            figures["real of"] += 1
            for way, right in json.loads(kept.read_text()).items():
                figures[f"real right {way}"] += right


def _of_sample(sample: Sample, llm: LLM, seed: int) -> dict[str, bool]:
    """Whether an answer of the tree, or of the samples, holds a known answer."""
    from longspan.corpus import Corpus

    metadata: dict[str, Any] = sample.metadata or {}
    begin, end = metadata["context"]
    corpus = Corpus.from_texts({"text": str(sample.input)[begin:end]})
    targets = [sample.target] if isinstance(sample.target, str) else list(sample.target)
    answers = asyncio.run(_answers(metadata["question"], corpus, llm, seed, REAL_WIDTH, 1))
    return {way: any(t.lower() in each.lower() for each in said for t in targets) for way, said in answers.items()}


async def _answers(question: str, corpus: Corpus, llm: LLM, seed: int, width: int, depth: int) -> dict[str, list[str]]:
    """The answers of a whole tree, and as many samples without it."""
    from longspan.llm import Message, Sampling
    from longspan.workflows.agenticlu import ANSWER, ANSWER_TOKENS, TEMPERATURE, TOP_P, Clarifications
    from longspan.workflows.answer import Settings
    from longspan.workflows.atoms import Atoms
    from longspan.workflows.parallel import parallel

    tree = Clarifications(question, Atoms.of(corpus, llm), llm, Settings(), width=width, seed=seed)
    root = await tree.grow(depth)
    prompt = ANSWER.format(question=question, text=tree.text(root.paragraphs))

    async def one(number: int) -> str:
        how = Sampling(temperature=TEMPERATURE, top_p=TOP_P, seed=1000 * seed + number)
        message = Message(role="user", content=prompt)
        return (await llm.chat([message], max_tokens=ANSWER_TOKENS, sampling=how)).text

    nodes = [node.answer for node in root.walk()]
    return {"tree": nodes, "sampled": await parallel(one, range(len(nodes)))}
