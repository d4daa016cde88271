"""InftyThink: a long chain of reasoning in short rounds, each begun from a summary (Yan et al. 2025, arXiv:2503.06692).

"InftyThink: Breaking the Length Limits of Long-Context Reasoning in Large Language Models". A round gets the question
and the summary of the rounds before it, thinks at most η tokens, and ends with a new summary, or, without one, with the
answer. So what is in the window rises and falls like a saw, however long the reasoning is:

    s = ∅;  for each round: think, s' = M(question, s);  if s' is missing: stop;  s = s'

With n rounds of at most w tokens, attention sees n·w²/2 pairs of positions instead of (n·w)²/2.

What differs from the paper and its code (ZJU-REAL/InftyThink), or was inferred:

- the paper reasons about a question alone. Here a round is also given the next part of the text, so that what is
  read stays bounded like what is thought; once the text is read, rounds go on without it. Of a text with more parts
  than `ROUNDS` those that fit the question's words best are read, in the order of the text, unless the question takes
  all of it.
- The paper fine-tunes models to write `<think>…</think><summary>…</summary>`; here the form is asked for. A reply
  without it counts as the new summary while there is text left, and as the answer after that. A reply that was cut off
  is asked for its summary; the official code takes it for the answer.
- A summary that comes twice ends the thinking: the answer is asked for.
- A model too small to write summaries is asked each part for the fact alone; what the part carries is the summary, kept
  by the program.
- `segments` cuts the thinking of existing traces so that no segment exceeds η; the official code closes a segment
  only once it does. It begins a step at a blank line before a capital letter, as the official code.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from longspan.corpus import Corpus
from longspan.errors import UsageError
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
    find,
    is_nothing,
    leaf_tokens,
    leaves,
    promising,
    room_beside,
)
from longspan.workflows.question import WHOLE, kind_of, things
from longspan.workflows.support import citations_of

ROUND = (
    "You answer a question in rounds, as the text comes in parts. Question: {question}\n"
    "<history>{summary}</history>\nThe next part of the text:\n{text}\n\n" + QUOTED + "\n"
    "Think about what this part adds, between <think> and </think>. Then write between <summary> and </summary> all "
    "that is known so far, copying word for word what helps to answer, from the history and from this part. If you "
    "are sure of the whole answer, write it instead of the summary. If nothing helps yet, reply with exactly NONE.\n"
    "Question: {question}"
)
THINK = (
    "You answer a question in rounds of thinking. Question: {question}\n<history>{summary}</history>\n"
    "Think on from the history, between <think> and </think>. Then either write between <summary> and </summary> all "
    "that is known so far, to go on in another round, or, if you have it, the answer alone."
)
ANSWER = (
    "What is known from a text:\n{summary}\n\nAnswer from this alone, briefly. If it does not hold the answer, reply "
    "with exactly NONE.\nQuestion: {question}"
)
SUMMARISE = (
    "Question: {question}\n<history>{summary}</history>\nThinking so far:\n{thought}\n\n"
    "List the steps and the results that have been reached, one a line, and nothing else."
)

ROUNDS = 50  # as many as the official code
ETA = 1024  # tokens that a round may write
SUMMARY = 512  # tokens of a summary
SURE = 0.9  # evidence of a finding with which a small model's reading ends

_SUMMARY = re.compile(r"<summary>(.*?)(?:</summary>|\Z)", re.DOTALL)
_THOUGHT = re.compile(r"<think>(.*?)(</think>|\Z)", re.DOTALL)


@dataclass(slots=True)
class Saw:
    """Tokens read and written in each round: the saw-tooth of the window."""

    rounds: list[tuple[int, int]] = field(default_factory=list)

    @property
    def peak(self) -> int:
        """The most that was in the window."""
        return max((read + written for read, written in self.rounds), default=0)

    @property
    def pairs(self) -> int:
        """Pairs of positions that causal attention looks at, over all rounds."""
        return sum((read + written) * (read + written + 1) // 2 for read, written in self.rounds)

    def to_dict(self) -> dict[str, Any]:
        return {"rounds": [list(each) for each in self.rounds], "peak": self.peak, "pairs": self.pairs}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a round gave: `summary` to go on with, or `conclusion`; `formed` where it kept to the tags."""

    thought: str
    summary: str | None
    conclusion: str | None
    formed: bool


def parse(text: str) -> Reply:
    """A reply by its tags; text outside of them is the conclusion, unless there is a summary."""
    thought = _THOUGHT.search(text)
    summary = _SUMMARY.search(text)
    rest = _SUMMARY.sub("", _THOUGHT.sub("", text)).strip()
    thinking = thought[1].strip() if thought else ""
    if summary is not None:
        return Reply(thinking, summary[1].strip(), None, True)
    return Reply(thinking, None, rest or None, thought is not None and bool(thought[2]))


@register("workflow", "inftythink", systems=("inftythink",))
async def inftythink(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> Answer:
    """Read and think in rounds, each with the next part of the text and a summary of the rounds before."""
    saw = Saw()
    with span("rounds", "workflow") as step:
        if llm.reader == "extract":
            text, held, note = await _finding(question, corpus, llm, settings, saw)
            citations = [cited(found) for found in held]
        else:
            text, seen, note = await _writing(question, corpus, llm, settings, saw)
            citations = [] if is_nothing(text) else await asyncio.to_thread(_cited, question, text, seen)
        step.output = saw.to_dict()
    tokens = sum(read + written for read, written in saw.rounds)
    note = f"InftyThink: {len(saw.rounds)} rounds, at most {saw.peak} tokens in the window, {tokens} in all.{note}"
    refused = is_nothing(text)
    if refused:
        text, citations = REFUSAL, []
    if settings.on_text:
        settings.on_text(text)
    return Answer(question, text, refused, citations, "inftythink", llm.name, note)


def _cited(question: str, text: str, seen: tuple[Atoms, list[Part]]) -> list[Citation]:
    atoms, parts = seen
    passages = [passage for part in parts for passage in atoms.passages_of(part)]
    return citations_of(text, atoms.corpus, passages)


async def think(question: str, llm: LLM, settings: Settings | None = None, saw: Saw | None = None) -> str:
    """The paper's own case: reason about a question without a text, in as many rounds as it takes, up to `ROUNDS`."""
    return await _thinking(question, "", llm, settings or Settings(), saw if saw is not None else Saw())


async def _writing(
    question: str, corpus: Corpus, llm: LLM, settings: Settings, saw: Saw
) -> tuple[str, tuple[Atoms, list[Part]], str]:
    """Rounds of a model that writes: (answer or NONE, what was read, what a user should know)."""
    eta, most = _sizes(llm)
    room = room_beside(ROUND.format(question=question, summary="", text=""), llm, most + eta)
    atoms = await asyncio.to_thread(Atoms.of, corpus, llm)
    parts = leaves(atoms, min(leaf_tokens(llm, everything=True), room))
    chosen, note = _chosen(question, parts, atoms)
    summary, read = "", list[Part]()
    for at, part in enumerate(chosen):
        prompt = ROUND.format(question=question, summary=summary, text=atoms.text(part))
        try:
            reply = await _round(prompt, question, summary, eta, llm, saw)
        except BudgetSpent:
            note += f" The budget was spent before {len(chosen) - at} of {len(chosen)} parts were read."
            break
        read.append(part)
        if settings.on_progress:
            settings.on_progress("reading in rounds", at + 1, len(chosen))
        if reply.formed and reply.conclusion is not None and not is_nothing(reply.conclusion):
            return reply.conclusion, (atoms, read), note + " It was sure before the end of the text."
        new = reply.summary if reply.summary is not None else reply.conclusion or ""
        summary = summary if is_nothing(new) else _within(new, most, llm)
    if not summary:
        return NONE, (atoms, read), note
    if kind_of(question) == "count" and summary.strip().rstrip(".").isdigit():
        return summary.strip(), (atoms, read), note  # the running total is the answer
    return await _thinking(question, summary, llm, settings, saw), (atoms, read), note


async def _thinking(question: str, summary: str, llm: LLM, settings: Settings, saw: Saw) -> str:
    """Rounds without a text. With a summary of a text, one that gives no further summary is the last."""
    eta, most = _sizes(llm)
    if summary:
        return (await _asked(ANSWER.format(summary=summary, question=question), settings.max_tokens, llm, saw)).strip()
    seen: set[str] = set()
    for at in range(ROUNDS):
        prompt = THINK.format(question=question, summary=summary)
        reply = await _round(prompt, question, summary, eta, llm, saw)
        if settings.on_progress:
            settings.on_progress("thinking in rounds", at + 1, ROUNDS)
        if reply.summary is None:
            return reply.conclusion or reply.thought
        summary = _within(reply.summary, most, llm)
        if summary in seen:  # it goes round in circles
            break
        seen.add(summary)
    return (await _asked(ANSWER.format(summary=summary, question=question), settings.max_tokens, llm, saw)).strip()


async def _round(prompt: str, question: str, summary: str, eta: int, llm: LLM, saw: Saw) -> Reply:
    """One round; a reply that η cut off before its summary is asked for it."""
    completion = await llm.chat([Message(role="user", content=prompt)], max_tokens=eta)
    saw.rounds.append((completion.usage.prompt_tokens, completion.usage.completion_tokens))
    reply = parse(completion.text)
    if completion.finish_reason == "length" and reply.summary is None:
        thought = reply.thought or completion.text
        again = SUMMARISE.format(question=question, summary=summary, thought=thought)
        return Reply(thought, (await _asked(again, _sizes(llm)[1], llm, saw)).strip(), None, True)
    return reply


async def _asked(prompt: str, max_tokens: int, llm: LLM, saw: Saw) -> str:
    completion = await llm.chat([Message(role="user", content=prompt)], max_tokens=max_tokens)
    saw.rounds.append((completion.usage.prompt_tokens, completion.usage.completion_tokens))
    return completion.text


def _sizes(llm: LLM) -> tuple[int, int]:
    """η and the longest summary, in tokens."""
    return min(ETA, llm.effective_window // 4), min(SUMMARY, llm.effective_window // 8)


def _within(summary: str, tokens: int, llm: LLM) -> str:
    """The last lines of a summary that `tokens` hold: the newest is at its end."""
    lines = summary.splitlines()
    while len(lines) > 1 and llm.count_tokens("\n".join(lines)) > tokens:
        lines = lines[1:]
    while llm.count_tokens(lines[0]) > tokens:
        words = lines[0].split()
        lines[0] = " ".join(words[len(words) // 4 + 1 :])
    return "\n".join(lines)


def _chosen(question: str, parts: Sequence[Part], atoms: Atoms) -> tuple[list[Part], str]:
    """The parts that are read, in the order of the text, and what a user should know of the choice."""
    if len(parts) <= ROUNDS or kind_of(question) in WHOLE:
        return list(parts), ""
    scores = [atoms.score(part, question, 0) for part in parts]
    best = sorted(range(len(parts)), key=lambda at: (-scores[at], at))[:ROUNDS]
    return [
        parts[at] for at in sorted(best)
    ], f" Of {len(parts)} parts the {ROUNDS} that fit the question best were read."


# -- for models too small to write summaries ---------------------------------------------------------------------------


async def _finding(
    question: str, corpus: Corpus, llm: LLM, settings: Settings, saw: Saw
) -> tuple[str, list[Finding], str]:
    """Rounds of a model that is asked each part for the facts alone: (answer or NONE, what it rests on, note)."""
    atoms = await asyncio.to_thread(Atoms.of, corpus, llm)
    asked = things(question)
    weights = {each: await asyncio.to_thread(atoms.rarity, each) for each in asked}
    rounds = promising(asked, leaves(atoms, leaf_tokens(llm)), atoms, ROUNDS)
    summary: dict[str, Finding] = {}
    dropped = 0
    for at, (part, each) in enumerate(rounds):
        if each in summary and summary[each].score >= SURE:
            continue
        with span("round", "workflow", {"tokens": part.tokens}) as step:
            found, reply = await find(each, part, weights[each], atoms, llm)
            step.output = reply
        used = step.total()
        saw.rounds.append((used.prompt_tokens, used.completion_tokens))
        if settings.on_progress:
            settings.on_progress("reading in rounds", at + 1, len(rounds))
        dropped += found is None and reply != NONE
        if found is not None and (each not in summary or found.score > summary[each].score):
            summary[each] = found
    note = f" {llm.name} is too small to write summaries: a program kept what the parts carry."
    if dropped:
        note += f" {dropped} findings were left out: their part does not carry them."
    held = [summary[each] for each in asked if each in summary]
    return "\n".join(found.text for found in held) or NONE, held, note


# -- the training data -------------------------------------------------------------------------------------------------


def steps(thinking: str) -> list[str]:
    """The steps of a chain of thought: it is cut at blank lines before a capital letter."""
    out: list[str] = []
    for block in thinking.split("\n\n"):
        if out and not block[:1].isupper():
            out[-1] = f"{out[-1]}\n\n{block}"
        else:
            out.append(block)
    return out


def segments(thinking: str, eta: int, count: Callable[[str], int]) -> list[str]:
    """The thinking in segments of at most `eta` tokens: whole steps where they fit, else their words.

    Joined by blank lines, segments that end with whole steps give the thinking again.
    """
    if eta < 8:
        raise UsageError(f"Segments of {eta} tokens are too short: give at least 8.")
    out: list[str] = []
    for step in steps(thinking):
        joined = f"{out[-1]}\n\n{step}" if out else step
        if out and count(joined) <= eta:
            out[-1] = joined
        elif count(step) <= eta:
            out.append(step)
        else:
            out += _pieces(step, eta, count)
    return out


def _pieces(step: str, eta: int, count: Callable[[str], int]) -> list[str]:
    """A step that is longer than a segment, cut between words; a word that is longer, between characters."""
    out: list[str] = []
    left = re.findall(r"\s*\S+", step)
    while left:
        low, high = 1, len(left)  # how many words fit
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if count("".join(left[:middle])) <= eta else (low, middle - 1)
        piece = "".join(left[:low])
        if count(piece) > eta:
            half = max(len(piece) // 2, 1)
            left[:1] = [piece[:half], piece[half:]]
            continue
        out.append(piece)
        left = left[low:]
    return out


def split_solution(solution: str) -> tuple[str, str]:
    """The thinking and the conclusion of `<think>…</think>…`. Raises UsageError for another form."""
    found = re.match(r"\s*<think>\n?(.*?)\n?</think>(.*)\Z", solution, re.DOTALL)
    if found is None or not found[1].strip():
        raise UsageError("The solution is not of the form <think>…</think>… .")
    return found[1], found[2]


async def training_rows(question: str, solution: str, llm: LLM, *, eta: int = 4096) -> list[dict[str, Any]]:
    """One long solution as the rows of the iterative form, in TRL's prompt-completion format.

    `llm` writes the summaries, each from the one before and the segment; `eta` is in its tokens. A solution that fits
    one segment stays one row. Official code asks for a summary of all segments so far, which a window must hold.
    """
    thinking, conclusion = split_solution(solution)
    parts = segments(thinking, eta, llm.count_tokens)
    rows: list[dict[str, Any]] = []
    summary = ""
    for at, part in enumerate(parts):
        history = f"<history>{summary}</history>" if summary else ""
        if at == len(parts) - 1:
            target = f"<think>\n{part}\n</think>{conclusion}"
        else:
            prompt = SUMMARISE.format(question=question, summary=summary, thought=part)
            summary = (await llm.chat([Message(role="user", content=prompt)], max_tokens=SUMMARY)).text.strip()
            target = f"<think>\n{part}\n</think>\n<summary>\n{summary}\n</summary>"
        rows.append(
            {
                "prompt": [{"role": "user", "content": question + history}],
                "completion": [{"role": "assistant", "content": target}],
            }
        )
    return rows
