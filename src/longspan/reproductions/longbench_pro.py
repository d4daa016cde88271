"""LongBench Pro's second finding (Chen et al. 2026, arXiv:2601.02872): the effective context is shorter than claimed.

The paper reads it from 46 models on 1 500 questions. Here it is asked of the embedded model, whose window claims 8 192
tokens, by a fact to be found in real text: the task that a window must serve at the least. What would be claimed of
other tasks is weaker, never stronger: who cannot find a fact cannot reason over it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from longspan.errors import LongspanError
from longspan.evaluation.statistics import wilson
from longspan.registry import find
from longspan.reproductions.harness import Figures, Run, Verdict, reproduce

if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.dataset import Sample
    from matplotlib.figure import Figure

    from longspan.evaluation.lengths import TokenCounter

MODEL = "smollm2"
TASK = "niah"  # any task of longspan that takes lengths, depths, samples and seed, and hides one needle
CLAIMED = 8192  # tokens, the window of MODEL's own configuration
SHORTEST = 512
# How many depths, and samples of each, a seed takes of a length: most where a high score has to be told from the
# threshold, few where a prompt costs most.
FULL = {512: (5, 5), 1024: (5, 2), 2048: (5, 2), 4096: (5, 1), 6144: (5, 1), 8192: (5, 1)}
QUICK = {512: (5, 2), 8192: (1, 1)}  # shows that it runs; one sample cannot decide
KEPT = 0.85  # of the score at the shortest length: RULER's notion of an effective length, relative to this model
WINDOW = "window"  # the control's key


def pooled(seeds: Sequence[Figures]) -> dict[str, tuple[float, float]]:
    """Right answers and samples over all seeds, by length in tokens (as text) and for the control."""
    keys = [key.removeprefix("of ") for key in (seeds[0] if seeds else {}) if key.startswith("of ")]
    return {
        key: (sum(seed[f"right {key}"] for seed in seeds), sum(seed[f"of {key}"] for seed in seeds)) for key in keys
    }


def effective(counts: dict[str, tuple[float, float]]) -> int:
    """The largest length up to which every lower bound is above KEPT of the score at the shortest; 0 if none is."""
    lengths = sorted(int(key) for key in counts if key != WINDOW)
    right, of = counts[str(lengths[0])]
    threshold = KEPT * right / of
    reached = 0
    for length in lengths:
        if wilson(*counts[str(length)])[0] <= threshold:
            break
        reached = length
    return reached


def judge(seeds: Sequence[Figures]) -> Verdict:
    """The criterion, computed: see `reproduce` below."""
    counts = pooled(seeds)
    at_shortest = wilson(*counts[str(SHORTEST)])
    at_claimed = wilson(*counts[str(CLAIMED)])
    control = wilson(*counts[WINDOW])
    said = (
        f"at {CLAIMED} tokens {_share(counts[str(CLAIMED)])} (95 % {at_claimed[0]:.2f} to {at_claimed[1]:.2f}), "
        f"at {SHORTEST} {_share(counts[str(SHORTEST)])} (from {at_shortest[0]:.2f}), "
        f"the long samples cut to {SHORTEST} {_share(counts[WINDOW])}"
    )
    reached = effective(counts)
    length = f"effective context {reached}" if reached else "no length is known to be effective"
    if at_claimed[1] < KEPT * at_shortest[0]:
        # The samples that fail long must be answerable when they are short, or length is not what fails.
        if control[1] < KEPT * at_shortest[0]:
            return Verdict("inconclusive", f"The long samples fail when cut short too: {said}.")
        return Verdict("holds", f"{_capital(said)}: {length}.")
    if at_claimed[0] > KEPT * at_shortest[1]:
        return Verdict("does not hold at this scale", f"{_capital(said)}: the claimed window is used.")
    return Verdict("inconclusive", f"Too few samples to tell: {said}; {length}.")


def plot(seeds: Sequence[Figures], figure: Figure) -> None:
    counts = pooled(seeds)
    axes = figure.subplots()
    lengths = sorted(int(key) for key in counts if key != WINDOW)
    shares = [counts[str(length)][0] / counts[str(length)][1] for length in lengths]
    intervals = [wilson(*counts[str(length)]) for length in lengths]
    below = [share - low for share, (low, _) in zip(shares, intervals, strict=True)]
    above = [high - share for share, (_, high) in zip(shares, intervals, strict=True)]
    axes.errorbar(lengths, shares, yerr=[below, above], marker="o", capsize=3, label=f"{TASK}, 95 % interval")
    axes.plot([CLAIMED], [counts[WINDOW][0] / counts[WINDOW][1]], "s", label=f"the longest, cut to {SHORTEST}")
    axes.axhline(KEPT * shares[0], linestyle="--", color="grey", label=f"{KEPT:.0%} of the score at {lengths[0]}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("length (tokens)")
    axes.set_ylabel("score")
    axes.set_title(f"{MODEL}: effective context {effective(counts) or 'not shown'} of {CLAIMED} claimed")
    axes.legend()


@reproduce(
    slug="longbench-pro",
    title="LongBench Pro: A More Realistic and Comprehensive Bilingual Long-Context Evaluation Benchmark",
    year=2026,
    paper="arXiv:2601.02872",
    claim="The effective context length of a model is typically shorter than the context length it claims.",
    setting=(
        f"SmolLM2-135M-Instruct, which claims {CLAIMED} tokens, finds a fact in real text ({TASK}) at "
        f"{', '.join(map(str, FULL))} tokens and five depths; 25 samples a seed at the shortest length, ten at the "
        "next two, five beyond; greedy decoding."
    ),
    baseline=(
        f"The same task at {SHORTEST} tokens; and, as a control for the samples themselves, those of {CLAIMED} tokens "
        f"cut to a window of {SHORTEST} around their fact."
    ),
    criterion=(
        f"Holds if the upper bound of the score at {CLAIMED} tokens is below {KEPT:.0%} of the lower bound at "
        f"{SHORTEST} (Wilson, 95 %, over all seeds), and the same samples cut short are not below it; does not hold if "
        f"the lower bound at {CLAIMED} is above {KEPT:.0%} of the upper bound at {SHORTEST}; else inconclusive. The "
        f"effective context is the largest length up to which lower bounds stay above {KEPT:.0%} of the score at "
        f"{SHORTEST}."
    ),
    judge=judge,
    plot=plot,
)
def measure(run: Run) -> Figures:
    """Right answers and samples of each length and of the control. Lengths done before an interruption are kept."""
    from longspan.evaluation import _registry  # noqa: F401 - the tasks and the provider register themselves

    figures: Figures = {}
    for length, (depths, samples) in (QUICK if run.quick else FULL).items():
        make = partial(
            find("task", TASK), lengths=length, depths=depths, samples=samples, seed=run.seed, tokenizer=MODEL
        )
        figures |= _counted(run, str(length), make)
        if length == CLAIMED:
            figures |= _counted(run, WINDOW, partial(_cut_short, make))
    return figures


def _counted(run: Run, key: str, make: Callable[[], Task]) -> Figures:
    """Right answers and samples of one task, from what an interrupted run left or by running it."""
    # Inspect takes a second to load: only who reproduces waits for it.
    from inspect_ai import eval as inspect_eval

    kept = run.folder / f"{MODEL}-{TASK}-{key}-{run.seed}{'-quick' if run.quick else ''}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    run.tell(f"{key} tokens" if key != WINDOW else f"the longest, cut to {SHORTEST} tokens")
    (log,) = inspect_eval(
        make(), model=f"longspan/{MODEL}", display="none", log_dir=str(run.folder / "logs"), log_samples=True
    )
    if log.status != "success" or not log.samples:
        raise LongspanError(
            f"Inspect could not finish {TASK} at {key}: {log.error.message if log.error else log.status}."
        )
    scores = [next(iter(sample.scores.values())).as_float() for sample in log.samples if sample.scores]
    figures = {f"right {key}": sum(scores), f"of {key}": float(len(scores))}
    unfinished = kept.with_suffix(".part")
    unfinished.write_text(json.dumps(figures))
    unfinished.replace(kept)
    return figures


def _cut_short(make: Callable[[], Task]) -> Task:
    """The task with every sample's text cut to a window of SHORTEST tokens around its needle."""
    from inspect_ai.dataset import MemoryDataset

    from longspan.evaluation.lengths import counter

    task = make()
    count = counter(MODEL)
    task.dataset = MemoryDataset([_window(sample, count) for sample in task.dataset], name=f"{TASK}-{WINDOW}")
    return task


def _window(sample: Sample, counter: TokenCounter) -> Sample:
    """The sample with as much text on either side of its needle as fits SHORTEST tokens with template and answer."""
    from longspan.evaluation.lengths import fit

    metadata = sample.metadata or {}
    prompt = str(sample.input)
    begin, end = metadata["context"]
    (needle,) = metadata["needles"]
    first = prompt.index(needle, begin, end)
    last = first + len(needle)

    def build(letters: int) -> str:
        return prompt[:begin] + prompt[max(begin, first - letters) : min(end, last + letters)] + prompt[end:]

    around = metadata["tokens"] - counter.count(prompt)  # template and answer
    _, short = fit(build, counter, SHORTEST - around)
    return sample.model_copy(update={"input": short, "metadata": {**metadata, "length": SHORTEST}})


def _share(count: tuple[float, float]) -> str:
    return f"{count[0]:g} of {count[1]:g}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
