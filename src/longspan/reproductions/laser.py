"""Laser's claims at a size that this machine has: actions of exact form parse, and a register keeps the window small
where a growing history makes an agent lose its way (Wang et al. 2025, arXiv:2512.20458).

How often a free reply is an action at all is measured on the embedded model. Whether a long search succeeds takes a
model that can plan; the simulated reader stands for one, with errors that grow with the length of its prompt as the
embedded model's do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from longspan.reproductions._shares import (
    answered,
    bounds,
    chain,
    draw_shares,
    draw_sums,
    longest_prompt,
    pooled,
    sentence,
    sizes_of,
    spread,
)
from longspan.reproductions.harness import Figures, Run, Verdict, reproduce

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from longspan.llm import LLM

HOPS, QUICK_HOPS = (2, 8, 16, 28), (2, 28)
LENGTH = 32_768
SAMPLES, QUICK_SAMPLES = 8, 3
REPLIES, QUICK_REPLIES = 8, 4
STEPS = 64
WAYS = {"register": "Laser", "history": "the same agent with its history"}


def judge(seeds: Sequence[Figures]) -> Verdict:
    sums = pooled(seeds)
    longest = sizes_of(sums)[-1]
    register, history = bounds(sums, "register", longest), bounds(sums, "history", longest)
    peak = max(seed[f"peak register {size}"] for seed in seeds for size in sizes_of(sums))
    of = sums[f"of {longest}"]
    said = (
        f"after {longest} hops the register's agent is right in {sums[f'right register {longest}']:g} of {of:g} (95 % "
        f"from {register[0]:.2f}), never with more than {peak:g} tokens in the window, the history's in "
        f"{sums[f'right history {longest}']:g} (to {history[1]:.2f}); of SmolLM2's replies {sums['parsed held']:g} of "
        f"{sums['replies']:g} parse where they are held to the protocol, {sums['parsed free']:g} where it is only "
        f"asked for"
    )
    parsed = sums["parsed held"] == sums["replies"]
    if not parsed or peak > seeds[0]["window"] or register[1] < history[0]:
        return Verdict("does not hold at this scale", sentence(said))
    if register[0] > history[1] and sums["parsed free"] < sums["replies"]:
        return Verdict("holds", sentence(said))
    return Verdict("inconclusive", f"Too few samples to tell: {said}.")


def plot(seeds: Sequence[Figures], figure: Figure) -> None:
    sums = pooled(seeds)
    shares, peaks = figure.subplots(1, 2)
    draw_shares(shares, sums, WAYS)
    draw_sums(peaks, sums, "window", WAYS)
    peaks.set_ylabel("tokens in the window at most (mean)")
    for axes in (shares, peaks):
        axes.set_xlabel("hops from fact to fact")


@reproduce(
    slug="laser",
    title="Laser: Governing Long-Horizon Agentic Search via Structured Protocol and Context Register",
    year=2025,
    paper="arXiv:2512.20458",
    claim=(
        "A symbolic action protocol makes every step parse, and a compact register keeps long searches on their way "
        "where agents with growing histories fail."
    ),
    setting=(
        f"The simulated reader with SmolLM2-135M's error curve (simulated:smollm2) as the agent: chains of "
        f"{', '.join(map(str, HOPS))} variables in real text of {LENGTH} tokens, {SAMPLES} of each a seed. Parsing: "
        f"{REPLIES} replies of SmolLM2-135M itself a seed, to registers as they come up."
    ),
    baseline=(
        "The same agent with the same search and as many steps, whose prompt is the history of its actions and what "
        "they showed; where the window is full the oldest are left out. For parsing: the same prompts, the reply not "
        "held to the protocol's grammar."
    ),
    criterion=(
        "Does not hold if a reply that is held to the protocol does not parse, if any prompt of Laser exceeds the "
        "effective window of 2048 tokens, or if Laser is surely right less often at the longest chain (Wilson, 95 %, "
        "over all seeds). Holds if it is surely right more often there, and some free replies do not parse. Else "
        "inconclusive."
    ),
    judge=judge,
    plot=plot,
)
def measure(run: Run) -> Figures:
    """By hops: samples, right with register and history, and the most tokens in the window (sums; `peak` the "
    "maximum)."""
    from longspan.evaluation.lengths import counter
    from longspan.llm import SimulatedLLM

    count = counter("smollm2")
    llm = SimulatedLLM("smollm2", seed=run.seed)
    figures: Figures = {"window": float(llm.effective_window)}
    for hops in QUICK_HOPS if run.quick else HOPS:
        run.tell(f"{hops} hops")
        found: Figures = {"of": 0.0, "peak register": 0.0}
        found |= {f"{what} {way}": 0.0 for what in ("right", "window") for way in WAYS}
        for at in range(QUICK_SAMPLES if run.quick else SAMPLES):
            seed = f"{run.seed}-{at}-{hops}"
            question, value, facts = chain(hops, seed)
            text = spread(facts, LENGTH, seed, count)
            told = answered(question, text, llm, "laser")
            found["of"] += 1
            found["right register"] += value in told.text
            found["window register"] += longest_prompt(told)
            found["peak register"] = max(found["peak register"], longest_prompt(told))
            text_found, longest = asyncio.run(_with_history(question, text, llm))
            found["right history"] += value in text_found
            found["window history"] += longest
        figures |= {f"{key} {hops}": number for key, number in found.items()}
    return figures | _parsing(run)


async def _with_history(question: str, text: str, llm: LLM) -> tuple[str, int]:
    """The baseline: an agent that sees what it did and what that showed. (Its answer, the most tokens in the "
    "window.)"""
    from longspan.corpus import Corpus
    from longspan.llm import Message
    from longspan.workflows.actions import Lines, Read, Say, Search, described, protocol
    from longspan.workflows.atoms import Atoms
    from longspan.workflows.budget import latest, reserve
    from longspan.workflows.structured import structured

    actions = (Search, Read, Say)
    lines = Lines(Atoms.of(Corpus.from_texts({"text": text}), llm))
    shape = protocol(*actions)
    fixed: list[Message] = [
        Message(
            role="system",
            content="Answer from a text that you can only search. Reply with one action:\n" + described(*actions),
        ),
        Message(role="user", content=f"QUESTION: {question}"),
    ]
    turns: list[tuple[Message, Message]] = []
    longest = 0
    for _ in range(STEPS):
        messages = [*fixed, *latest(llm, fixed, turns, 256)]
        longest = max(longest, reserve(llm, messages, 0)[0])
        reply = await structured(llm, messages, shape, max_tokens=256)
        action: Any = reply.do if reply is not None else None  # type: ignore[attr-defined]  # made by `protocol`
        if isinstance(action, Say):
            return action.text, longest
        shown = (
            ""
            if action is None
            else lines.search(action.query)
            if isinstance(action, Search)
            else lines.read(action.line)
        )
        said = reply.model_dump_json() if reply is not None else ""
        turns.append((Message(role="assistant", content=said), Message(role="user", content=shown)))
    return "", longest


def _parsing(run: Run) -> Figures:
    """How many of the embedded model's replies are actions, held to the protocol and not."""
    from pydantic import ValidationError

    from longspan.corpus import Corpus
    from longspan.evaluation.lengths import counter
    from longspan.llm import Message, open_local
    from longspan.workflows.actions import Lines, protocol
    from longspan.workflows.atoms import Atoms
    from longspan.workflows.laser import ACTIONS, SYSTEM, Register

    llm = open_local("smollm2")
    question, _, facts = chain(4, f"parsing {run.seed}")
    text = spread(facts, 8_192, f"parsing {run.seed}", counter("smollm2"))
    lines = Lines(Atoms.of(Corpus.from_texts({"text": text}), llm))
    shape = protocol(*ACTIONS)
    figures = {"replies": 0.0, "parsed held": 0.0, "parsed free": 0.0}
    replies = QUICK_REPLIES if run.quick else REPLIES
    for at in range(replies):
        run.tell(f"reply {at + 1} of {replies}, SmolLM2")
        word = facts[at % len(facts)].split()[1]
        state = Register(question, searches=[word], observation=lines.search(word))
        messages = [Message(role="system", content=SYSTEM)]
        messages.append(Message(role="user", content=state.shown(llm, 768, 256) + f"\n(step {at + 2})"))
        figures["replies"] += 1
        for way, schema in (("held", shape.model_json_schema()), ("free", None)):
            reply = asyncio.run(llm.chat(messages, max_tokens=256, schema=schema)).text
            try:
                shape.model_validate_json(reply.strip())
            except ValidationError:
                continue
            figures[f"parsed {way}"] += 1
    return figures
