"""Memex's claim at a size that this machine has: what is archived under an index can be used again, exactly, where a
running summary of the same size has lost it (Wang et al. 2026, arXiv:2603.04257). Its inference part; not the training.

The experience is a row of passages of real text, each with one fact. Only at the end is it known which is needed. The
summary is as good as a summary of its size can be: it lists the facts of the passages, the latest that it has room for.
The agent is the simulated reader, with errors that grow with the length of its prompt as the embedded model's do.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from longspan.reproductions._shares import bounds, draw_shares, draw_sums, pooled, sentence, sizes_of, spread
from longspan.reproductions.harness import Figures, Run, Verdict, reproduce

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from longspan.llm import LLM

EPISODES, QUICK_EPISODES = (8, 16, 32, 64), (16, 64)
ASKED, QUICK_ASKED = 8, 3
PASSAGE = 160  # tokens
BUDGET = 1_536  # tokens of the working context
SUMMARY = 256  # tokens of a summary
STEPS = 12
WAYS = {"archive": "Memex", "summary": "running summary", "latest": "the latest that fit"}


def judge(seeds: Sequence[Figures]) -> Verdict:
    sums = pooled(seeds)
    longest = sizes_of(sums)[-1]
    archive, summary, latest = (bounds(sums, way, longest) for way in WAYS)
    peak = max(seed[f"peak archive {size}"] for seed in seeds for size in sizes_of(sums))
    lost = sum(sums[f"lost {size}"] for size in sizes_of(sums))
    of = sums[f"of {longest}"]
    said = (
        f"after {longest} passages {sums[f'right archive {longest}']:g} of {of:g} questions are answered with the "
        f"archive (95 % from {archive[0]:.2f}), {sums[f'right summary {longest}']:g} with a running summary (to "
        f"{summary[1]:.2f}), {sums[f'right latest {longest}']:g} with the latest passages (to {latest[1]:.2f}); at "
        f"most {peak:g} of {BUDGET} tokens were in the window, {lost:g} passages could not be read back word for word"
    )
    if lost or peak > BUDGET or archive[1] < max(summary[0], latest[0]):
        return Verdict("does not hold at this scale", sentence(said))
    if archive[0] > summary[1] and archive[0] > latest[1]:
        return Verdict("holds", sentence(said))
    return Verdict("inconclusive", f"Too few samples to tell: {said}.")


def plot(seeds: Sequence[Figures], figure: Figure) -> None:
    sums = pooled(seeds)
    shares, windows = figure.subplots(1, 2)
    draw_shares(shares, sums, WAYS)
    draw_sums(windows, sums, "window", WAYS)
    windows.set_ylabel("tokens in the window at most (mean)")
    for axes in (shares, windows):
        axes.set_xlabel("passages seen")
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes_of(sums), [str(size) for size in sizes_of(sums)])


@reproduce(
    slug="memex",
    title="Memex(RL): Scaling Long-Horizon LLM Agents via Indexed Experience Memory",
    year=2026,
    paper="arXiv:2603.04257",
    claim=(
        "Archiving what leaves the window under stable indices, and reading it back when it is needed, keeps evidence "
        "that summaries lose, at a smaller working context."
    ),
    setting=(
        f"{', '.join(map(str, EPISODES))} passages of {PASSAGE} tokens of real text, each with one access code, seen "
        f"one after the other in a working context of {BUDGET} tokens; then {ASKED} codes a seed are asked for, each "
        "alone. The simulated reader with SmolLM2-135M's error curve (simulated:smollm2) decides what to read back. "
        "Not tried: the training of what to archive and when to read."
    ),
    baseline=(
        f"The same reader and the same budget with a running summary of {SUMMARY} tokens that lists facts of the "
        "passages, the latest it has room for; and with the latest passages that fit."
    ),
    criterion=(
        "Does not hold if a passage cannot be read back word for word, if the window exceeds its budget, or if the "
        "archive is surely right less often than either at the most passages (Wilson, 95 %, over all seeds). Holds if "
        "it is surely right more often than both there. Else inconclusive."
    ),
    judge=judge,
    plot=plot,
)
def measure(run: Run) -> Figures:
    """By passages seen: questions, right by each way, tokens in the window (sums), and passages that were lost."""
    from longspan.evaluation.lengths import counter
    from longspan.evaluation.tasks.niah import NEEDLE, ONE
    from longspan.evaluation.words import ADJECTIVES, NOUNS
    from longspan.llm import SimulatedLLM

    count = counter("smollm2")
    llm = SimulatedLLM("smollm2", seed=run.seed)
    figures: Figures = {}
    for episodes in QUICK_EPISODES if run.quick else EPISODES:
        run.tell(f"{episodes} passages")
        found: Figures = {"of": 0.0, "lost": 0.0, "peak archive": 0.0}
        found |= {f"{what} {way}": 0.0 for what in ("right", "window") for way in WAYS}
        chance = random.Random(f"memex {run.seed} {episodes}")
        places = [f"{chance.choice(ADJECTIVES)} {noun}" for noun in chance.sample(NOUNS, episodes)]
        codes = [str(code) for code in chance.sample(range(10**6, 10**7), episodes)]
        facts = [NEEDLE.format(place=place, code=code) for place, code in zip(places, codes, strict=True)]
        passages = [spread([fact], PASSAGE, f"{run.seed}-{episodes}-{at}", count) for at, fact in enumerate(facts)]
        for at in chance.sample(range(episodes), QUICK_ASKED if run.quick else ASKED):
            question = ONE.format(places=places[at])
            found["of"] += 1
            told, window, lost = asyncio.run(archived(question, places, passages, llm))
            answers = {"archive": (told, window)}
            answers["summary"] = asyncio.run(_summarised(question, facts, passages, llm))
            answers["latest"] = asyncio.run(_latest(question, passages, llm))
            found["lost"] += lost
            found["peak archive"] = max(found["peak archive"], window)
            for way, (text, tokens) in answers.items():
                found[f"right {way}"] += codes[at] in text
                found[f"window {way}"] += tokens
        figures |= {f"{key} {episodes}": number for key, number in found.items()}
    return figures


async def archived(question: str, places: Sequence[str], passages: Sequence[str], llm: LLM) -> tuple[str, int, int]:
    """Memex: (answer, most tokens in the window, passages that cannot be read back)."""
    from longspan.workflows.actions import Say, described, protocol
    from longspan.workflows.memex import Entry, Experience, Recall, Window
    from longspan.workflows.structured import structured

    system = "You remember what you saw. Reply with one action:\n" + described(Recall, Say)
    store = Experience()
    window = Window("", store, llm, BUDGET, system=system)
    for at, passage in enumerate(passages, 1):
        if window.turns and window.pressed_by(passage):
            first = window.begun
            entries = [
                Entry(name=f"p{n}", about=f"access code of the {places[n - 1]}", first=n, last=n)
                for n in range(first, first + len(window.turns))
            ]
            window.compress("", entries)
        window.add(f"passage {at}", passage)
    window.question = question
    said = ""
    for _ in range(STEPS):
        reply = await structured(llm, window.messages(), protocol(Recall, Say), max_tokens=256)
        if reply is None:
            break
        action = reply.do  # type: ignore[attr-defined]  # of the shape that `protocol` made
        if isinstance(action, Say):
            said = action.text
            break
        if window.pressed_by(passages[0]):
            window.compress("")
        window.add(reply.model_dump_json(), window.recall(action.name, action.page))
    stored = "\n".join(store.get(name) for name, _ in store.index()) + "\n".join(text for _, text in window.turns)
    lost = sum(passage not in stored for passage in passages)
    store.close()
    return said, window.longest, lost


async def _summarised(question: str, facts: Sequence[str], passages: Sequence[str], llm: LLM) -> tuple[str, int]:
    """The running summary: the latest facts in `SUMMARY` tokens, and the passages since it was last written."""
    summary: list[str] = []
    here: list[int] = []
    for at in range(len(passages)):
        here.append(at)
        if llm.count_tokens("\n".join(passages[n] for n in here)) > BUDGET - SUMMARY - len(passages[0]) // 3:
            summary += [facts[n] for n in here]
            while llm.count_tokens("\n".join(summary)) > SUMMARY:
                summary.pop(0)
            here = []
    return await _asked(question, [*summary, *(passages[n] for n in here)], llm)


async def _latest(question: str, passages: Sequence[str], llm: LLM) -> tuple[str, int]:
    held: list[str] = []
    for passage in reversed(passages):
        if llm.count_tokens("\n".join([passage, *held])) > BUDGET - 128:
            break
        held.insert(0, passage)
    return await _asked(question, held, llm)


async def _asked(question: str, known: Sequence[str], llm: LLM) -> tuple[str, int]:
    from longspan.llm import Message

    prompt = "\n".join([*known, question])
    completion = await llm.chat([Message(role="user", content=prompt)], max_tokens=64)
    return completion.text, completion.usage.prompt_tokens
