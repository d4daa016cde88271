"""Laser: an agent whose every step is a symbol of a protocol, and whose memory is a register (arXiv:2512.20458).

"Laser: Governing Long-Horizon Agentic Search via Structured Protocol and Context Register" (Wang et al. 2025). An agent
that writes freely and keeps everything it saw fills its window and loses its thread. Here each reply is one action of
three spaces, in an exact form, and what the next step sees is not the history but a register of what matters:

    register = (question, plan, findings, searches, remarks, last observation)
    for each step: action = M(protocol, register);  register = effect(action, register);  until ANSWER

    planning     plan       subgoals
    solving      search, read, keep (a line of the text among the findings), answer
    retrospection  judge (a subgoal done or failed), remark, drop (a finding)

So the prompt has a bound, whatever the number of steps, and every step can be read back.

What differs from the paper, or was inferred (no code of the authors' was found; the three spaces and the slots are the
paper's, the names of actions and slots and their sizes are ours):

- actions are JSON objects; a model of this machine cannot write anything else (`engine.grammar`), another is asked once
  more, and a second failure is counted.
- Findings are words of the text, copied by the program: no fact comes from the model's own words, and each has its
  place. Findings beyond the slot's size stay as numbers that can be read again.
- The same action on the same register is told to the model, a third time ends the run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from longspan.corpus import Corpus
from longspan.llm import LLM, Message
from longspan.registry import register
from longspan.trace import span
from longspan.workflows.actions import Action, LineNumber, Lines, Read, Say, Search, Short, described, protocol
from longspan.workflows.answer import Answer, Settings
from longspan.workflows.atoms import Atoms
from longspan.workflows.budget import BudgetSpent
from longspan.workflows.generate import REFUSAL
from longspan.workflows.leaf import QUOTED, is_nothing
from longspan.workflows.passages import flat
from longspan.workflows.structured import structured


class Plan(Action):
    """Write down the subgoals that lead to the answer, at first or anew."""

    action: Literal["plan"]
    subgoals: Annotated[list[Short], Field(min_length=1, max_length=6)]


class Keep(Action):
    """Copy words of the observation's line of this number to the findings, exactly; for an empty quote the line."""

    action: Literal["keep"]
    line: LineNumber
    quote: Short


class Judge(Action):
    """Look back at a subgoal by its number: it is reached, or it cannot be."""

    action: Literal["judge"]
    subgoal: Annotated[int, Field(ge=1, le=6)]
    outcome: Literal["done", "failed"]


class Remark(Action):
    """Write down what was learned on the way, such as a wrong turn not to take again."""

    action: Literal["remark"]
    text: Short


class Drop(Action):
    """Look back at the findings: the line of this number does not help."""

    action: Literal["drop"]
    line: LineNumber


ACTIONS: tuple[type[Action], ...] = (Plan, Search, Read, Keep, Say, Judge, Remark, Drop)
SYSTEM = (
    "You answer a question from a long text that you can only search. Each reply is one action, a JSON object:\n"
    + described(*ACTIONS)
    + "\nYou remember nothing but the register that you are shown: plan first, keep what you need from each "
    "observation, then search on, and answer as soon as the findings tell. " + QUOTED
)
AGAIN = "you did exactly this before, with nothing gained: do something else, or answer"
STEPS = 64
ACTION_TOKENS = 256
REMARKS = 6  # that are shown; the latest
# Shares of the effective window that findings and searches are shown in: 768 and 256 tokens of 2048.
FINDINGS, SEARCHES = 3 / 8, 1 / 8
FAILURES = 3  # replies in a row that do not parse


@dataclass(slots=True)
class Register:
    """What the agent knows. It is shown findings and searches in so many tokens at most, the latest of each."""

    question: str
    plan: list[tuple[str, str]] = field(default_factory=list)  # subgoal, open | done | failed
    findings: dict[int, str] = field(default_factory=dict)  # by their line's number, in the order they were kept
    searches: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    observation: str = "nothing yet"

    def shown(self, llm: LLM, findings: int, searches: int) -> str:
        """The register as the model sees it."""
        kept: list[str] = []
        for at, quote in reversed(self.findings.items()):
            line = f"[{at}] {quote}"
            findings -= llm.count_tokens(line) + 1
            kept.append(line if findings >= 0 else f"[{at}] (read {at} to see it)")
        searched: list[str] = []
        for query in reversed(self.searches):
            searches -= llm.count_tokens(query) + 4
            if searches < 0:
                break
            searched.append(f'search "{query}"')
        plan = [f"{number}. [{state}] {goal}" for number, (goal, state) in enumerate(self.plan, 1)]
        return "\n".join(
            [
                f"QUESTION: {self.question}",
                "PLAN:",
                *(plan or ["none yet"]),
                "FINDINGS:",
                *(reversed(kept) if kept else ["none yet"]),
                "SEARCHED:",
                *(reversed(searched) if searched else ["nothing yet"]),
                "REMARKS:",
                *([f"- {remark}" for remark in self.remarks[-REMARKS:]] or ["none yet"]),
                "OBSERVATION:",
                self.observation,
            ]
        )

    def apply(self, action: Action, text: Lines) -> None:
        """The action's effect; one that cannot be done is remarked."""
        match action:
            case Plan(subgoals=goals):
                self.plan = [(flat(goal), "open") for goal in goals]
            case Search(query=query):
                self.searches.append(flat(query))
                self.observation = text.search(query)
            case Read(line=line):
                self.observation = text.read(line)
            case Keep(line=line, quote=quote):
                if f"[{line}] " not in self.observation:
                    self.remarks.append(f"line {line} is not in the observation: nothing was kept")
                else:
                    whole, before = text.text(line), self.findings.get(line, "")
                    words = quote if quote.strip() and quote in whole else whole
                    if words not in before:
                        self.findings[line] = f"{before} … {words}" if before and words != whole else words
            case Judge(subgoal=number, outcome=outcome):
                if number > len(self.plan):
                    self.remarks.append(f"there is no subgoal {number}")
                else:
                    self.plan[number - 1] = (self.plan[number - 1][0], outcome)
            case Remark(text=remark):
                self.remarks.append(flat(remark))
            case Drop(line=line):
                self.findings.pop(line, None)


@register("workflow", "laser", systems=("laser",))
async def laser(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> Answer:
    """An agent searches the text by actions of exact form and remembers a bounded register, not its history."""
    lines = Lines(await asyncio.to_thread(Atoms.of, corpus, llm))
    state = Register(question)
    text, note = await _steps(state, lines, llm, settings)
    refused = text is None or is_nothing(text)
    said = REFUSAL if text is None or refused else text
    citations = [] if refused else [found for at in state.findings if (found := lines.citation(at))]
    if settings.on_text:
        settings.on_text(said)
    return Answer(question, said, refused, citations, "laser", llm.name, note)


async def _steps(state: Register, lines: Lines, llm: LLM, settings: Settings) -> tuple[str | None, str]:
    """(The answer, or None where the agent came to none; what a user should know)."""
    shape = protocol(*ACTIONS)
    findings, searches = (int(share * llm.effective_window) for share in (FINDINGS, SEARCHES))
    done: Counter[tuple[str, str]] = Counter()
    unparsed = in_a_row = longest = 0

    def note(end: str = "") -> str:
        failed = f" {unparsed} replies did not parse." if unparsed else ""
        return f"Laser: {sum(done.values())} actions, at most {longest} tokens in the window.{failed}{end}"

    for step in range(STEPS):
        shown = state.shown(llm, findings, searches)
        messages: Sequence[Message] = [
            Message(role="system", content=SYSTEM),
            Message(role="user", content=shown),
        ]
        longest = max(longest, sum(llm.count_tokens(message["content"]) for message in messages))
        try:
            reply = await structured(llm, messages, shape, max_tokens=min(ACTION_TOKENS, llm.window // 8))
        except BudgetSpent:
            return None, note(" The budget was spent before there was an answer.")
        if reply is None:
            unparsed, in_a_row = unparsed + 1, in_a_row + 1
            if in_a_row == FAILURES:
                return None, note(" It did not keep to the protocol.")
            continue
        in_a_row = 0
        action: Action = reply.do  # type: ignore[attr-defined]  # of the shape that `protocol` made
        with span(action.action, "action", action.model_dump()) as here:  # type: ignore[attr-defined]  # all have it
            done[action.model_dump_json(), shown] += 1
            times = sum(count for (what, _), count in done.items() if what == action.model_dump_json())
            if isinstance(action, Say):
                return action.text, note()
            before = (list(state.plan), dict(state.findings), state.observation)
            state.apply(action, lines)
            here.output = state.observation
            if times > 1 and before == (state.plan, state.findings, state.observation):
                if times > 2:
                    return None, note(" It went round in circles.")
                state.remarks.append(AGAIN)
        if settings.on_progress:
            settings.on_progress("searching by protocol", step + 1, STEPS)
    return None, note(f" There was no answer within {STEPS} steps.")
