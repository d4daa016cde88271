"""M4LE's first two findings (Kwan et al. 2023, arXiv:2310.19240), at the size of the embedded model.

The paper compares abilities over different datasets, whose other difficulties differ too. Here four of them are asked
after the very same texts, in the same prompt up to the last question, for the same kind of answer (names of articles),
so that only what the ability is about is left: one text or three (span), named by id or by a sentence that sums it up
(hint). *Global*, the class of one document, has no such twin and counts for the finding about length alone.

So small a model seldom keeps to the form of an answer. Its answers are therefore held to a JSON list of as many names
as are wanted, each one of those in the context (for *global*, one of the classes offered): what is measured is which it
chooses. Scores are the share of right names, corrected for guessing: (share - chance) / (1 - chance), where chance is
the number wanted over the number there is to choose from. 0 is guessing without saying a name twice, 1 is perfect; who
says one name three times finds less than that, which is why nothing is concluded from models that only guess.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from longspan.llm import LLM, LocalLLM
from longspan.reproductions.harness import Figures, Run, Verdict, reproduce

if TYPE_CHECKING:
    from inspect_ai.dataset import Sample
    from matplotlib.figure import Figure

MODEL = "smollm2"
PAIRED = ("explicit-single", "semantic-single", "explicit-multiple", "semantic-multiple")
ABILITIES = (*PAIRED, "global")
FULL = (1024, 2048, 4096), 8  # lengths in tokens, contexts a seed
QUICK = (1024, 1536), 1  # shows that it runs: so few contexts decide nothing
ANSWER_TOKENS = 160  # three long names as JSON
FLOOR = 0.25  # who is surely below this at the easiest, where 0 is guessing and 1 perfect, is not competent
ENOUGH = 8  # contexts: what fewer show is not judged
# What is claimed to be above 0, as means over contexts of paired differences.
CLAIMS = {
    "length": "the shortest length minus the longest, over the five abilities",
    "span": "single-span minus multiple-span, over hints and lengths",
    "hint": "explicit minus semantic, over spans and lengths",
}
ABLE = "able"  # explicit single-span at the shortest length: what must be above guessing for the rest to mean anything

Scores = dict[tuple[str, int, int], float]  # by ability, length and number of the context


def contrasts(scores: Scores) -> dict[str, list[float]]:
    """For each of CLAIMS and for ABLE, one value a context: each over all its lengths."""
    lengths = sorted({length for _, length, _ in scores})
    found: dict[str, list[float]] = defaultdict(list)
    for number in sorted({number for _, _, number in scores}):

        def over(abilities: Sequence[str], at: Sequence[int], number: int = number) -> float:
            return _mean([scores[ability, length, number] for ability in abilities for length in at])

        explicit, semantic, explicit_multiple, semantic_multiple = PAIRED
        found["length"].append(over(ABILITIES, lengths[:1]) - over(ABILITIES, lengths[-1:]))
        found["span"].append(
            over((explicit, semantic), lengths) - over((explicit_multiple, semantic_multiple), lengths)
        )
        found["hint"].append(
            over((explicit, explicit_multiple), lengths) - over((semantic, semantic_multiple), lengths)
        )
        found[ABLE].append(over((explicit,), lengths[:1]))
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
    found = {name: interval(seeds, name) for name in (*CLAIMS, ABLE)}
    said = ", ".join(f"{name} {mean:+.2f} ({low:+.2f} to {high:+.2f})" for name, (mean, low, high) in found.items())
    contexts = int(sum(seed[f"of {ABLE}"] for seed in seeds))
    if contexts < ENOUGH:
        return Verdict("inconclusive", f"Too few contexts to judge by ({contexts}): {said}.")
    if found[ABLE][2] < FLOOR:
        return Verdict("does not hold at this scale", f"Scores are at the floor, nothing can fall from there: {said}.")
    against = [name for name in CLAIMS if found[name][2] < 0]
    if against:
        return Verdict("does not hold at this scale", f"The other way round for {' and '.join(against)}: {said}.")
    for_it = [name for name in CLAIMS if found[name][1] > 0]
    if len(for_it) == len(CLAIMS) and found[ABLE][1] > 0:
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
    left.axhline(0, color="grey", linestyle=":", label="guessing")
    left.set_xscale("log", base=2)
    left.set_xticks(lengths, [str(length) for length in lengths])
    left.set_xlabel("length (tokens)")
    left.set_ylabel("score (0 is guessing)")
    left.set_ylim(top=1.03)
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
        "summary; and the class of one document (global). An example of each question stands before; the answer is "
        "held to names that there are; decoding is greedy."
    ),
    baseline=(
        "Each score against its pair after the same texts: shortest against longest prompt, single against multiple, "
        "explicit against semantic; and all against guessing, for which scores are corrected."
    ),
    criterion=(
        f"Differences are means over the contexts of all seeds (at least {ENOUGH}, else inconclusive) with 95 % t "
        "intervals. Does not hold if explicit "
        f"single-span at the shortest length is surely below {FLOOR} (the floor: the model is not competent), or if "
        "one of the three differences (length, span, hint) is surely below 0. Holds if all three are surely above 0, "
        "and explicit single-span is above guessing. Else inconclusive."
    ),
    judge=judge,
    plot=plot,
)
def measure(run: Run) -> Figures:
    """Mean scores by ability and length, and of each paired difference its sum, sum of squares and number."""
    lengths, contexts = QUICK if run.quick else FULL
    scores: Scores = {}
    llm = LocalLLM(MODEL)
    try:
        for length in lengths:
            for ability, number, score in _asked(run, llm, length, contexts):
                scores[ability, length, number] = score
    finally:
        llm.close()
    figures = {
        f"score {ability} {length}": _mean([scores[ability, length, number] for number in range(contexts)])
        for length in lengths
        for ability in ABILITIES
    }
    for name, values in contrasts(scores).items():
        figures[f"sum {name}"] = sum(values)
        figures[f"squares {name}"] = sum(value**2 for value in values)
        figures[f"of {name}"] = float(len(values))
    return figures


def _asked(run: Run, llm: LLM, length: int, contexts: int) -> list[tuple[str, int, float]]:
    """(ability, context, score) of one length: kept from an interrupted run, or asked of the model."""
    from longspan.evaluation.tasks.m4le import m4le  # inspect takes a second to load

    kept = run.folder / f"m4le-{MODEL}-{length}-{contexts}-{run.seed}.json"
    if kept.is_file():
        return [(str(ability), int(number), float(score)) for ability, number, score in json.loads(kept.read_text())]
    rows = []
    for abilities, type in ((PAIRED, "ret"), (("global",), "cls")):
        task = m4le(lengths=length, ability=abilities, type=type, samples=contexts, seed=run.seed, tokenizer=MODEL)
        for sample in task.dataset:
            number = int(str(sample.id).rpartition("-")[2])
            run.tell(f"{length} tokens, context {number + 1} of {contexts}")
            rows.append(((sample.metadata or {})["ability"], number, asyncio.run(score_of(sample, llm))))
    unfinished = kept.with_suffix(".part")
    unfinished.write_text(json.dumps(rows))
    unfinished.replace(kept)
    return rows


async def score_of(sample: Sample, llm: LLM) -> float:
    """The share of the wanted names that the model chooses, corrected for guessing."""
    metadata = sample.metadata or {}
    begin, end = metadata["context"]
    if metadata["ability"] == "global":
        names = metadata["question"].rpartition("one of: ")[2].rstrip(".").split(", ")
    else:
        names = re.findall(r"(?:^|\n)Article [0-9A-F]{6}, named (\w+):", str(sample.input)[begin:end])
    wanted = set(sample.target)
    schema = {"type": "array", "items": {"enum": names}, "minItems": len(wanted), "maxItems": len(wanted)}
    completion = await llm.chat(
        [{"role": "user", "content": str(sample.input)}], max_tokens=ANSWER_TOKENS, schema=schema
    )
    chance = len(wanted) / len(names)
    return (len(wanted & set(json.loads(completion.text))) / len(wanted) - chance) / (1 - chance)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
