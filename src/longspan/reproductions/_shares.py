"""What the reproductions of workflows have in common: texts with facts in them, counts of right answers, their plot.

Figures are counts (`of SIZE`, `right WAY SIZE`) and sums (`tokens WAY SIZE`, `window WAY SIZE`), so that seeds add up.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import string
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from longspan.evaluation.statistics import wilson
from longspan.reproductions.harness import Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from longspan.evaluation.lengths import TokenCounter
    from longspan.llm import LLM
    from longspan.workflows import Answer


def chain(hops: int, seed: str) -> tuple[str, str, list[str]]:
    """Variables of which each holds the one before: (question of the last one's value, the value, facts)."""
    chance = random.Random(f"chain {seed}")
    names: dict[str, None] = {}
    while len(names) < hops:
        names["".join(chance.choices(string.ascii_uppercase, k=5))] = None
    value = str(chance.randrange(10_000, 99_999))
    held = [value, *names]
    facts = [f"LET {name} = {before}." for name, before in zip(names, held, strict=False)]
    return f"What value does the variable {held[-1]} hold?", value, facts


def other_chains(count: int, seed: str) -> list[str]:
    """Facts that look like those of `chain` and lead nowhere, in chains of five."""
    return [fact for at in range(-(-count // 5)) for fact in chain(5, f"other {at} {seed}")[2]][:count]


def spread(facts: Sequence[str], length: int, seed: str, counter: TokenCounter) -> str:
    """Real text of `length` tokens with the facts at places drawn over all of it."""
    from longspan.evaluation.haystack import hide
    from longspan.evaluation.tasks.ruler.niah import apart

    hidden = hide(
        facts, apart(len(facts), seed), haystack="real", before="", after="", room=length, counter=counter, seed=seed
    )
    return hidden.context


def answered(question: str, text: str, llm: LLM, workflow: str, max_tokens: int = 256) -> Answer:
    """The workflow's answer from a text alone."""
    from longspan.corpus import Corpus
    from longspan.workflows import Settings, run

    settings = Settings(max_tokens=max_tokens)
    return asyncio.run(run(question, Corpus.from_texts({"text": text}), llm, workflow, settings))


def alone(question: str, text: str, llm: LLM, max_tokens: int = 256) -> Answer:
    """The model's own answer from the beginning of the text, as much as its window holds: what truncation gives."""
    room = llm.window - max_tokens - llm.count_tokens(question) - 256
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if llm.count_tokens(text[:middle]) <= room else (low, middle - 1)
    return answered_at_once(question, text[:low], llm, max_tokens)


def answered_at_once(question: str, text: str, llm: LLM, max_tokens: int) -> Answer:
    """One call with the whole of a text that fits."""
    from longspan.llm import Message
    from longspan.workflows import Answer

    prompt = f"{text}\n\n{question} Answer briefly."
    completion = asyncio.run(llm.chat([Message(role="user", content=prompt)], max_tokens=max_tokens))
    return Answer(question, completion.text, False, [], "alone", llm.name, usage=completion.usage)


def longest_prompt(answer: Answer) -> int:
    """The most tokens that one call of a run read."""
    if answer.trace is None:
        return answer.usage.prompt_tokens
    return max((step.usage.prompt_tokens for step in answer.trace.walk() if step.kind == "llm"), default=0)


def pooled(seeds: Sequence[Figures]) -> dict[str, float]:
    """Every figure summed over the seeds."""
    return {key: sum(seed[key] for seed in seeds) for key in (seeds[0] if seeds else {})}


def sizes_of(sums: Mapping[str, float], prefix: str = "of ") -> list[int]:
    """The sizes that were measured, ascending."""
    return sorted(int(key.removeprefix(prefix)) for key in sums if key.startswith(prefix))


def bounds(sums: Mapping[str, float], way: str, size: int) -> tuple[float, float]:
    """The 95 % interval (Wilson) of a way's share of right answers."""
    interval = wilson(sums[f"right {way} {size}"], sums[f"of {size}"])
    return interval[0], interval[1]


def draw_shares(axes: Axes, sums: Mapping[str, float], ways: Mapping[str, str]) -> None:
    """Shares of right answers with their intervals against the size; `ways` has the labels."""
    sizes = sizes_of(sums)
    for way, label in ways.items():
        share = [sums[f"right {way} {size}"] / sums[f"of {size}"] for size in sizes]
        low, high = zip(*(bounds(sums, way, size) for size in sizes), strict=True)
        below = [max(a - b, 0.0) for a, b in zip(share, low, strict=True)]
        above = [max(b - a, 0.0) for a, b in zip(share, high, strict=True)]
        axes.errorbar(sizes, share, yerr=[below, above], marker="o", capsize=3, label=label)
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("right (95 % interval)")
    axes.legend()


def draw_sums(axes: Axes, sums: Mapping[str, float], figure: str, ways: Mapping[str, str]) -> None:
    """A sum's mean over the samples against the size; the legend is that of the shares beside it."""
    sizes = sizes_of(sums)
    for way, label in ways.items():
        axes.plot(sizes, [sums[f"{figure} {way} {n}"] / sums[f"of {n}"] for n in sizes], marker="o", label=label)


def lengths_axis(axes: Axes, sizes: Sequence[int]) -> None:
    """A logarithmic axis of text lengths."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size // 1024}K" for size in sizes])
    axes.set_xlabel("length of the text (tokens)")


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


PAUSE = 0.1  # seconds in which threads that still wait for work fall asleep


def seconds_of(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median time of each call: three blocks of `rounds`, the calls taking turns block by block.

    Not call by call: the threads of the one before would still be spinning, on the cores that the next one needs.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(3):
        for name, call in runs.items():
            time.sleep(PAUSE)
            call()  # warms
            for _ in range(rounds):
                begin = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(each) for name, each in times.items()}
