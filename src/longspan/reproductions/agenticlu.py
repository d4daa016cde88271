"""AgenticLU's claim at a size that this machine has: searching a tree of clarifications, each with its own context,
raises how often an answer of the tree is right (Zhuang et al. 2025, arXiv:2502.15920: 97.8 % on NarrativeQA at depth 3
and width 8). The training on such trees is not tried here; `longspan dataset agenticlu` makes its data.

Everything is the embedded model's own: the clarifications it samples, the answers it gives. Its trees are one step
deep.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from longspan.reproductions._shares import bounds, draw_shares, pooled, sentence, sizes_of
from longspan.reproductions.harness import Figures, Run, Verdict, reproduce

if TYPE_CHECKING:
    from inspect_ai.dataset import Sample
    from matplotlib.figure import Figure

    from longspan.llm import LocalLLM

WIDTHS = (1, 2, 4, 8)
TASKS = ("ruler-qa-1", "ruler-qa-2")
LENGTH = 8_192
SAMPLES, QUICK_SAMPLES = 5, 1
ENOUGH = 30  # questions from which on no difference is one
WAYS = {"tree": "an answer of the tree", "sampled": "as many samples without clarifying"}


def judge(seeds: Sequence[Figures]) -> Verdict:
    sums = pooled(seeds)
    widest, narrowest = sizes_of(sums)[-1], sizes_of(sums)[0]
    tree, one, sampled = bounds(sums, "tree", widest), bounds(sums, "tree", narrowest), bounds(sums, "sampled", widest)
    of = sums[f"of {widest}"]
    said = (
        f"with {widest} clarifications an answer of the tree is right in {sums[f'right tree {widest}']:g} of {of:g} "
        f"(95 % {tree[0]:.2f} to {tree[1]:.2f}), with {narrowest} in {sums[f'right tree {narrowest}']:g} (to "
        f"{one[1]:.2f}), of as many samples without clarifying in {sums[f'right sampled {widest}']:g} (to "
        f"{sampled[1]:.2f})"
    )
    flat = of >= ENOUGH and sums[f"right tree {widest}"] <= sums[f"right tree {narrowest}"]
    if tree[1] < sampled[0] or flat:
        return Verdict("does not hold at this scale", sentence(said))
    if tree[0] > one[1] and sums[f"right tree {widest}"] > sums[f"right sampled {widest}"]:
        return Verdict("holds", sentence(said))
    return Verdict("inconclusive", f"Not surely more: {said}.")


def plot(seeds: Sequence[Figures], figure: Figure) -> None:
    sums = pooled(seeds)
    axes = figure.subplots()
    draw_shares(axes, sums, WAYS)
    axes.set_xlabel("answers looked at (width of the tree)")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes_of(sums), [str(size) for size in sizes_of(sums)])


@reproduce(
    slug="agenticlu",
    title="Self-Taught Agentic Long Context Understanding",
    year=2025,
    paper="arXiv:2502.15920",
    claim=(
        "A tree search over self-clarifications with pointback contains the right answer far more often than one "
        "answer, the more the wider it is."
    ),
    setting=(
        f"SmolLM2-135M-Instruct on {', '.join(TASKS)} of {LENGTH} tokens, {SAMPLES} questions of each a seed: "
        f"{WIDTHS[-1]} clarifications sampled at temperature 1, one step deep; an answer is right where RULER's metric "
        "finds the known one in it. Not tried: three steps of eight (584 nodes a question), the trained model."
    ),
    baseline=(
        "As many answers of the same model to the question itself at temperature 1, from the passages that the "
        "question points back to, at a third of the calls."
    ),
    criterion=(
        "Holds if the widest tree is surely right more often than one clarification (Wilson, 95 %, over all seeds) and "
        "more often than as many samples. Does not hold if width adds nothing over 30 questions or more, or the "
        "samples are surely right more often. Else inconclusive."
    ),
    judge=judge,
    plot=plot,
)
def measure(run: Run) -> Figures:
    """By width: questions, and those for which the tree, or as many samples, hold the known answer (sums)."""
    from longspan.evaluation.compare import make_task
    from longspan.llm import open_local

    llm = open_local("smollm2")
    figures: Figures = {f"{key} {width}": 0.0 for key in ("of", "right tree", "right sampled") for width in WIDTHS}
    for task in TASKS:
        number = QUICK_SAMPLES if run.quick else SAMPLES
        arguments = {"lengths": LENGTH, "samples": number, "seed": run.seed, "tokenizer": "smollm2"}
        for at, sample in enumerate(make_task(task, arguments).dataset):
            kept = run.folder / f"{task}-{at}-{run.seed}-{number}.json"
            if not kept.is_file():
                run.tell(f"{task}, question {at + 1} of {number}")
                kept.write_text(json.dumps(asyncio.run(_right(sample, llm, run.seed))))
            right = json.loads(kept.read_text())
            for width in WIDTHS:
                figures[f"of {width}"] += 1
                for way in WAYS:
                    figures[f"right {way} {width}"] += any(right[way][:width])
    return figures


async def _right(sample: Sample, llm: LocalLLM, seed: int) -> dict[str, list[bool]]:
    """Which of the answers of tree and samples hold a known answer, in the order they were made."""
    from longspan.corpus import Corpus
    from longspan.llm import Message, Sampling
    from longspan.workflows.agenticlu import ANSWER, ANSWER_TOKENS, TEMPERATURE, TOP_P, Clarifications
    from longspan.workflows.answer import Settings
    from longspan.workflows.atoms import Atoms
    from longspan.workflows.parallel import parallel

    metadata = sample.metadata or {}
    begin, end = metadata["context"]
    question = metadata["question"]
    corpus = Corpus.from_texts({"text": str(sample.input)[begin:end]})
    targets = [sample.target] if isinstance(sample.target, str) else list(sample.target)

    def right(answer: str) -> bool:
        return any(target.lower() in answer.lower() for target in targets)

    tree = Clarifications(question, Atoms.of(corpus, llm), llm, Settings(), width=WIDTHS[-1], seed=seed)
    root = await tree.root()
    await tree.expand(root)
    prompt = ANSWER.format(question=question, text=tree.text(root.paragraphs))

    async def one(number: int) -> str:
        how = Sampling(temperature=TEMPERATURE, top_p=TOP_P, seed=1000 * seed + number)
        message = Message(role="user", content=prompt)
        return (await llm.chat([message], max_tokens=ANSWER_TOKENS, sampling=how)).text

    sampled = await parallel(one, range(WIDTHS[-1]))
    return {"tree": [right(node.answer) for node in root.children], "sampled": [right(text) for text in sampled]}
