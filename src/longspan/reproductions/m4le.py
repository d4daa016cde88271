"""M4LE's first two findings (Kwan et al. 2023, arXiv:2310.19240), at the size of the embedded model.

The paper compares abilities over different datasets, whose other difficulties differ too. Here four of them are asked
after the very same texts, in the same prompt up to the last question, for the same kind of answer (names of articles)
under the same metric (F1 of the names), so that only what the ability is about is left: one text or three (span), named
by id or by a sentence that sums it up (hint). *Global*, a question after one document, has no such twin and counts for
the finding about length alone.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from longspan.errors import LongspanError
from longspan.reproductions.harness import Figures, Run, Verdict, reproduce

if TYPE_CHECKING:
    from inspect_ai.dataset import Sample
    from matplotlib.figure import Figure

MODEL = "smollm2"
PAIRED = ("explicit-single", "semantic-single", "explicit-multiple", "semantic-multiple")
ABILITIES = (*PAIRED, "global")
FULL = (1024, 2048, 4096), 8  # lengths in tokens, contexts a seed
QUICK = (1024, 1536), 2  # shows that it runs: so few contexts decide nothing
FLOOR = 0.1  # a score that is surely no more than this above guessing is at the floor
# What is claimed to be above 0, as means over contexts of paired differences.
CLAIMS = {
    "length": "the shortest length minus the longest, over the five abilities",
    "span": "single-span minus multiple-span, over hints and lengths",
    "hint": "explicit minus semantic, over spans and lengths",
}
GUESS = "guess"  # explicit single-span at the shortest length minus the score of naming any article

Scores = dict[tuple[str, int, int], float]  # by ability, length and number of the context


def contrasts(scores: Scores, chances: Scores) -> dict[str, list[float]]:
    """For each claim, and for what is above guessing, one difference a context: each over all its lengths."""
    lengths = sorted({length for _, length, _ in scores})
    found: dict[str, list[float]] = defaultdict(list)
    for number in sorted({number for _, _, number in scores}):

        def over(abilities: Sequence[str], at: Sequence[int], number: int = number) -> float:
            values = [scores[ability, length, number] for ability in abilities for length in at]
            return sum(values) / len(values)

        es, ss, em, sm = PAIRED
        found["length"].append(over(ABILITIES, lengths[:1]) - over(ABILITIES, lengths[-1:]))
        found["span"].append(over((es, ss), lengths) - over((em, sm), lengths))
        found["hint"].append(over((es, em), lengths) - over((ss, sm), lengths))
        found[GUESS].append(over((es,), lengths[:1]) - chances[es, lengths[0], number])
    return found


def interval(seeds: Sequence[Figures], name: str) -> tuple[float, float, float]:
    """Mean of a difference over all contexts of all seeds, and its 95 % interval by Student's t."""
    from scipy.stats import t

    of = sum(seed[f"of {name}"] for seed in seeds)
    mean = sum(seed[f"sum {name}"] for seed in seeds) / of
    if of < 2:
        return mean, -math.inf, math.inf
    variance = max(0.0, sum(seed[f"squares {name}"] for seed in seeds) - of * mean**2) / (of - 1)
    reach = float(t.ppf(0.975, of - 1)) * math.sqrt(variance / of)
    return mean, mean - reach, mean + reach


def judge(seeds: Sequence[Figures]) -> Verdict:
    """The criterion, computed: see `reproduce` below."""
    found = {name: interval(seeds, name) for name in (*CLAIMS, GUESS)}
    said = ", ".join(f"{name} {mean:+.2f} ({low:+.2f} to {high:+.2f})" for name, (mean, low, high) in found.items())
    if found[GUESS][2] < FLOOR:
        return Verdict("does not hold at this scale", f"Scores are at the floor, nothing can fall from there: {said}.")
    against = [name for name in CLAIMS if found[name][2] < 0]
    if against:
        return Verdict("does not hold at this scale", f"The other way round for {' and '.join(against)}: {said}.")
    for_it = [name for name in CLAIMS if found[name][1] > 0]
    if len(for_it) == len(CLAIMS) and found[GUESS][1] > 0:
        return Verdict("holds", f"All three differences are above 0: {said}.")
    return Verdict("inconclusive", f"Shown for {' and '.join(for_it) or 'none of the three'}: {said}.")


def plot(seeds: Sequence[Figures], figure: Figure) -> None:
    """Scores over length by ability, with the level of guessing; the three differences with their intervals."""
    left, right = figure.subplots(1, 2)
    lengths = sorted({int(key.split()[-1]) for key in seeds[0] if key.startswith("score ")})

    def mean(key: str) -> float:
        return sum(seed[key] for seed in seeds) / len(seeds)

    for ability in ABILITIES:
        style = ("--" if ability.startswith("semantic") else "-") + ("o" if ability.endswith("single") else "s")
        left.plot(lengths, [mean(f"score {ability} {length}") for length in lengths], style, label=ability)
    left.plot(lengths, [mean(f"chance {length}") for length in lengths], ":", color="grey", label="naming any article")
    left.set_xscale("log", base=2)
    left.set_xticks(lengths, [str(length) for length in lengths])
    left.set_xlabel("length (tokens)")
    left.set_ylabel("score")
    left.set_ylim(-0.03, 1.03)
    left.legend(fontsize="small")
    found = [interval(seeds, name) for name in CLAIMS]
    means = [one[0] for one in found]
    reach = [one[2] - one[0] for one in found]
    right.errorbar(means, range(len(CLAIMS)), xerr=reach, fmt="o", capsize=3)
    right.axvline(0, color="grey", linestyle=":")
    right.set_yticks(range(len(CLAIMS)), list(CLAIMS))
    right.set_xlabel("difference of scores, 95 % interval")


@reproduce(
    slug="m4le",
    title="M4LE: A Multi-Ability Multi-Range Multi-Task Multi-Domain Long-Context Evaluation Benchmark for Large "
    "Language Models",
    year=2023,
    paper="arXiv:2310.19240",
    claim=(
        "Models struggle to understand long context (scores fall as it grows), particularly when tasks require "
        "multiple-span attention; semantic retrieval is more difficult than explicit retrieval for competent models."
    ),
    setting=(
        f"SmolLM2-135M-Instruct names articles of joined functions and docstrings of Python's library at "
        f"{', '.join(map(str, FULL[0]))} tokens, {FULL[1]} contexts a seed: one article or three, by id or by a "
        "summary; and answers a question after one document (global). An example of each question stands before, "
        "and decoding is greedy."
    ),
    baseline=(
        "Each score against its pair after the same texts: shortest against longest prompt, single against multiple, "
        "explicit against semantic; and all against naming any article of the context."
    ),
    criterion=(
        "Differences are means over the contexts of all seeds with 95 % t intervals. Does not hold if explicit "
        f"single-span at the shortest length is surely less than {FLOOR} above guessing (the floor: the model is not "
        "competent), or if one of the three differences (length, span, hint) is surely below 0. Holds if all three are "
        "surely above 0, and explicit single-span is above guessing. Else inconclusive."
    ),
    judge=judge,
    plot=plot,
)
def measure(run: Run) -> Figures:
    """Mean scores by ability and length, and of each paired difference its sum, sum of squares and number."""
    lengths, contexts = QUICK if run.quick else FULL
    scores: Scores = {}
    chances: Scores = {}
    for length in lengths:
        for ability, length_, number, score, chance in _asked(run, length, contexts):
            scores[ability, length_, number] = score
            chances[ability, length_, number] = chance
    figures: Figures = {}
    for length in lengths:
        for ability in ABILITIES:
            figures[f"score {ability} {length}"] = _mean([scores[ability, length, n] for n in range(contexts)])
        figures[f"chance {length}"] = _mean([chances[PAIRED[0], length, n] for n in range(contexts)])
    for name, differences in contrasts(scores, chances).items():
        figures[f"sum {name}"] = sum(differences)
        figures[f"squares {name}"] = sum(difference**2 for difference in differences)
        figures[f"of {name}"] = float(len(differences))
    return figures


def _asked(run: Run, length: int, contexts: int) -> list[tuple[str, int, int, float, float]]:
    """(ability, length, context, score, chance) of one length: kept from an interrupted run, or asked of the model."""
    # Inspect takes a second to load: only who reproduces waits for it.
    from inspect_ai import eval as inspect_eval

    from longspan.registry import find

    kept = run.folder / f"m4le-{MODEL}-{length}-{contexts}-{run.seed}.json"
    if kept.is_file():
        return [(str(row[0]), int(row[1]), int(row[2]), row[3], row[4]) for row in json.loads(kept.read_text())]
    run.tell(f"{length} tokens")
    rows = []
    for abilities, type in ((PAIRED, "ret"), (("global",), "qa")):
        task = find("task", "m4le")(
            lengths=length, ability=abilities, type=type, samples=contexts, seed=run.seed, tokenizer=MODEL
        )
        (log,) = inspect_eval(task, model=f"longspan/{MODEL}", display="none", log_dir=str(run.folder / "logs"))
        if log.status != "success" or not log.samples:
            raise LongspanError(
                f"Inspect could not finish m4le at {length}: {log.error.message if log.error else log.status}."
            )
        samples = {sample.id: sample for sample in task.dataset}
        for done in log.samples:
            score = next(iter((done.scores or {}).values())).as_float()
            number = int(str(done.id).rpartition("-")[2])
            rows.append((done.metadata["ability"], length, number, score, _chance(samples[done.id])))
    unfinished = kept.with_suffix(".part")
    unfinished.write_text(json.dumps(rows))
    unfinished.replace(kept)
    return rows


def _chance(sample: Sample) -> float:
    """The score of naming any one article: a share of one over their number."""
    begin, end = (sample.metadata or {})["context"]
    return 1 / max(1, str(sample.input)[begin:end].count("\n\nArticle ") + 1)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
