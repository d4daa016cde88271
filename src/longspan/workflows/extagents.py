"""ExtAgents: agents read chunks in parallel and share what they found; one reasons until it is confident
(arXiv:2505.21471).

"Scaling External Knowledge Input Beyond Context Windows of LLMs via Multi-Agent Collaboration" (Liu et al. 2025).
Seeking agents each hold one chunk and extract what bears on the question. What they found is ranked by relevance, and
the reasoning agent gets the best 1, 2, 4, 8 ... of it until it is confident of an answer (knowledge accumulation). If
it never is, the ranked findings go back to all seeking agents (global knowledge synchronization), which look at their
chunks again:

    for each round:  found += map(seek(question, chunk, shared), chunks)
                     for r = 1, 2, 4, …, |found|:  answer = reason(question, ranked(found)[:r]);  if confident: stop
                     shared = ranked(found)

All chunks of a round are read at once, so that the calls which must wait for each other are at most rounds · (1 + log₂
chunks), however long the text.

What differs from the paper and its code (THUNLP-MT/ExtAgents), or was inferred:

- findings are ranked by a program: how well the sentence of the chunk that carries a finding fits the question's
  words. The official code asks the model for a score of 0 to 100 (En.QA, Zh.QA), or takes the order of retrieval (RAG).
- A text of more than `AGENTS` chunks gives the agents those that have the question's words; the official code cuts
  what exceeds its input length out of the middle, or off the end of what was retrieved.
- Shared and accumulated findings are cut to what the effective window holds, the best first.
- A model too small to judge its confidence is taken to be confident of a finding that its chunk carries. A question of
  several things is asked for each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from longspan.corpus import Corpus
from longspan.llm import LLM, Message
from longspan.registry import register
from longspan.trace import span
from longspan.workflows.answer import Answer, Citation, Settings
from longspan.workflows.atoms import Atoms, Part
from longspan.workflows.budget import BudgetSpent
from longspan.workflows.generate import REFUSAL
from longspan.workflows.leaf import (
    NONE,
    QUOTED,
    Finding,
    cited,
    evidence,
    find,
    is_nothing,
    leaf_tokens,
    leaves,
    promising,
    room_beside,
)
from longspan.workflows.parallel import CONCURRENT, parallel
from longspan.workflows.question import WHOLE, kind_of, things
from longspan.workflows.support import citations_of

SEEK = (
    "You and others answer a question about a long text; this chunk of it is yours. Copy word for word, one a line, "
    "every sentence of the chunk that bears on the question, also if only together with other chunks. If there is "
    "none, reply with exactly NONE.\n\nChunk:\n{text}\n\n" + QUOTED + "\nQuestion: {question}"
)
SEEK_AGAIN = (
    "You and others answer a question about a long text; this chunk of it is yours. Found so far, in all chunks:\n"
    "{shared}\n\nWith this in mind, copy word for word, one a line, every further sentence of your chunk that bears on "
    "the question. Repeat nothing. If there is none, reply with exactly NONE.\n\nChunk:\n{text}\n\n" + QUOTED + "\n"
    "Question: {question}"
)
REASON = (
    "Found in a long text:\n{found}\n\nAnswer the question briefly from this alone. If it is not enough to be sure, "
    "reply with exactly NONE.\nQuestion: {question}"
)
LAST = "Found in a long text:\n{found}\n\nGive the best answer to the question from this.\nQuestion: {question}"

AGENTS = 64
ROUNDS = 5  # the official code's
SEEK_TOKENS = 192


@dataclass(frozen=True, slots=True)
class Found:
    """What a seeking agent found in its part, and how well it fits the question."""

    text: str
    part: Part
    score: float


@register("workflow", "extagents", systems=("extagents",))
async def extagents(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> Answer:
    """Agents seek in all parts of the text at once and share what they find; one reasons on the best of it."""
    atoms = await asyncio.to_thread(Atoms.of, corpus, llm)
    if llm.reader == "extract":
        text, citations, note = await _small(question, atoms, llm, settings)
    else:
        text, parts, note = await Team(question, atoms, llm, settings).answer()
        passages = [passage for part in parts for passage in atoms.passages_of(part)]
        citations = [] if is_nothing(text) else await asyncio.to_thread(citations_of, text, corpus, passages)
    refused = is_nothing(text)
    if refused:
        text, citations = REFUSAL, []
    if settings.on_text:
        settings.on_text(text)
    return Answer(question, text, refused, citations, "extagents", llm.name, f"ExtAgents: {note}")


class Team:
    """The seeking agents and the reasoning agent of one question."""

    def __init__(self, question: str, atoms: Atoms, llm: LLM, settings: Settings) -> None:
        self.question, self.atoms, self.llm, self.settings = question, atoms, llm, settings
        self.out = min(SEEK_TOKENS, llm.effective_window // 8)
        prompt = SEEK_AGAIN.format(question=question, shared="", text="")
        room = room_beside(prompt, llm, self.out)
        self.share = room // 3  # tokens of what is shared
        self.holds = room_beside(prompt, llm, settings.max_tokens)  # tokens of findings to reason on
        self.parts = leaves(atoms, min(leaf_tokens(llm, everything=True), room - self.share))
        self.agents = self.parts
        self.weights = atoms.rarity(question)
        self.waits = 0  # calls that had to wait for one another
        self.unread = 0

    async def answer(self) -> tuple[str, list[Part], str]:
        """(The answer or NONE, the parts that it rests on, what a user should know)."""
        found: list[Found] = []
        rounds = 0
        for rounds in range(1, ROUNDS + 1):
            new = await self._seek(self._fitting(found, self.share), rounds)
            known = {each.text for each in found}
            new = [each for each in new if each.text not in known]
            found = sorted([*found, *new], key=lambda each: -each.score)
            if not found or (not new and rounds > 1):
                break
            try:
                text, held = await self._reason(found)
            except BudgetSpent:
                note = " The budget was spent before the answer was reasoned: this is the best finding."
                return found[0].text, [found[0].part], self._note(rounds, 1) + note
            if not is_nothing(text):
                return text, [each.part for each in held], self._note(rounds, len(held))
            if self.unread:
                break
        if not found:
            return NONE, [], self._note(rounds, 0)
        held = self._fitting(found, self.holds)
        text = await self._ask(LAST, held)
        return text, [each.part for each in held], self._note(rounds, len(held)) + " It was never confident."

    def _note(self, rounds: int, held: int) -> str:
        read = len(self.agents) if len(self.agents) == len(self.parts) else f"{len(self.agents)} of {len(self.parts)}"
        note = (
            f"{read} parts by as many agents, {min(CONCURRENT, len(self.agents))} at once, in {rounds} rounds; the "
            f"answer rests on {held} findings, and {self.waits} calls had to wait for one another."
        )
        return note + (f" The budget was spent before {self.unread} parts were read." if self.unread else "")

    async def _seek(self, shared: Sequence[Found], rounds: int) -> list[Found]:
        """All agents once, at the same time."""
        told = "\n".join(each.text for each in shared)
        if len(self.parts) > AGENTS and kind_of(self.question) not in WHOLE:
            words = f"{self.question} {told}"  # what was found leads to other parts
            self.agents = [part for part, _ in promising([words], self.parts, self.atoms, AGENTS)]
        done = 0

        async def one(part: Part) -> Found | None:
            nonlocal done
            text = self.atoms.text(part)
            prompt = (SEEK_AGAIN if told else SEEK).format(question=self.question, shared=told, text=text)
            try:
                reply = await self.llm.chat([Message(role="user", content=prompt)], max_tokens=self.out)
            except BudgetSpent:
                self.unread += 1
                return None
            done += 1
            if self.settings.on_progress:
                self.settings.on_progress(f"seeking, round {rounds}", done, len(self.agents))
            if is_nothing(reply.text):
                return None
            return Found(reply.text.strip(), part, self._relevance(reply.text, part))

        with span(f"seek, round {rounds}", "workflow", {"agents": len(self.agents), "shared": len(shared)}) as step:
            replies = await parallel(one, self.agents)
            step.output = sum(reply is not None for reply in replies)
        self.waits += 1
        return [reply for reply in replies if reply is not None]

    def _relevance(self, text: str, part: Part) -> float:
        """How well a finding fits the question: by the sentence that carries it, or, where none does, half as well by
        the best piece of its part."""
        carried = evidence(text, self.question, self.weights, self.atoms.corpus, self.atoms.passages_of(part))
        if carried is not None:
            return carried[1]
        best = max(self.atoms.scores(self.question), default=0.0)
        return self.atoms.score(part, self.question, 0) / best / 2 if best else 0.0

    async def _reason(self, found: Sequence[Found]) -> tuple[str, list[Found]]:
        """The best 1, 2, 4 ... findings, until the reasoning agent is confident: (answer or NONE, findings it had)."""
        with span("reason", "workflow", {"findings": len(found)}) as step:
            for held in accumulated(self._fitting(found, self.holds)):
                text = await self._ask(REASON, held)
                if not is_nothing(text):
                    step.output = {"confident with": len(held)}
                    return text, held
        return NONE, []

    async def _ask(self, prompt: str, held: Sequence[Found]) -> str:
        told = "\n".join(each.text for each in held)
        content = prompt.format(found=told, question=self.question)
        self.waits += 1
        completion = await self.llm.chat([Message(role="user", content=content)], max_tokens=self.settings.max_tokens)
        return completion.text.strip()

    def _fitting(self, found: Sequence[Found], tokens: int) -> list[Found]:
        """The best findings that fit together; one too long is passed over."""
        held: list[Found] = []
        for each in found:
            length = self.llm.count_tokens(each.text) + 1
            if length <= tokens:
                held.append(each)
                tokens -= length
        return held


def accumulated(ranked: Sequence[Found]) -> Iterator[list[Found]]:
    """The best 1, 2, 4, 8 ... and at last all."""
    r = 1
    while r < len(ranked):
        yield list(ranked[:r])
        r *= 2
    if ranked:
        yield list(ranked)


async def _small(question: str, atoms: Atoms, llm: LLM, settings: Settings) -> tuple[str, list[Citation], str]:
    """Seeking agents that are asked for the fact alone; the best finding that its part carries is the answer."""
    asked = things(question)
    weights = {each: await asyncio.to_thread(atoms.rarity, each) for each in asked}
    parts = leaves(atoms, leaf_tokens(llm))
    agents = promising(asked, parts, atoms, AGENTS)
    done = unread = 0

    async def one(agent: tuple[Part, str]) -> Finding | None:
        nonlocal done, unread
        part, each = agent
        try:
            found, _ = await find(each, part, weights[each], atoms, llm)
        except BudgetSpent:
            unread += 1
            return None
        done += 1
        if settings.on_progress:
            settings.on_progress("seeking", done, len(agents))
        return found

    with span("seek, round 1", "workflow", {"agents": len(agents)}):
        found = [each for each in await parallel(one, agents) if each is not None]
    best = [
        max(mine, key=lambda each: each.score)
        for q in asked
        if (mine := [each for each in found if each.question == q])
    ]
    note = (
        f"{len(agents)} of {len(parts)} parts by as many agents, {min(CONCURRENT, len(agents))} at once; {llm.name} is "
        f"too small to judge what it knows: of {len(found)} findings that their part carries the best are the answer."
    )
    note += f" The budget was spent before {unread} parts were read." if unread else ""
    return "\n".join(each.text for each in best) or NONE, [cited(each) for each in best], note
