"""Memex: what leaves the window goes word for word into a store, and a stable index stays (arXiv:2603.04257).

"Memex(RL): Scaling Long-Horizon LLM Agents via Indexed Experience Memory" (Wang et al. 2026). An agent's window holds
the task, an indexed summary, and the latest turns. When they near the budget it compresses: it writes a summary and
names what it archives; the turns leave the window and stay in an experience store under these names. When it needs one,
it reads it back, exactly:

    M = [task, indexed summary];  for each step:
        action = M(M + status of the context)
        compress: store[name] = turns, for each name;  M = [task, summary + index of names]
        recall:   M += store[name]
        else:     M += action, observation

What differs from the paper, or was inferred (no code of the authors' was found):

- nothing can be lost: turns that the agent names nothing for are archived too, under the names `turns-1`, `turns-2` …
- An index that outgrows its share is itself archived, as `index-1`, and one line stays for it.
- Over three quarters of the budget nothing but compressing or answering is offered (the paper's untrained agent may
  overrun and is penalized).
- The paper trains when to write and read (MemexRL); this is its inference part.

The store is SQLite; `Experience(path)` keeps it in a file, so that it outlives the run.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from longspan.corpus import Corpus
from longspan.errors import LongspanError, UsageError
from longspan.llm import LLM, Message
from longspan.registry import register
from longspan.trace import span
from longspan.workflows.actions import Action, Lines, Read, Say, Search, described, protocol
from longspan.workflows.answer import Answer, Settings
from longspan.workflows.atoms import Atoms
from longspan.workflows.budget import MESSAGE, TEMPLATE, BudgetSpent
from longspan.workflows.generate import REFUSAL
from longspan.workflows.leaf import QUOTED, is_nothing
from longspan.workflows.structured import structured
from longspan.workflows.support import searched


class Entry(BaseModel, extra="forbid"):
    """What to archive under a name: turns `first` to `last` and, in a few words, what they are about."""

    name: Annotated[str, Field(max_length=40)]
    about: Annotated[str, Field(max_length=120)]
    first: Annotated[int, Field(ge=1, le=9_999)]
    last: Annotated[int, Field(ge=1, le=9_999)]


class Compress(Action):
    """Write down what is known so far, and archive the turns under names; they leave your sight and stay readable."""

    action: Literal["compress"]
    summary: Annotated[str, Field(max_length=1_200)]
    entries: Annotated[list[Entry], Field(max_length=6)]


class Recall(Action):
    """Show what was archived under a name, word for word; long entries have pages."""

    action: Literal["recall"]
    name: Annotated[str, Field(max_length=60)]
    page: Annotated[int, Field(ge=1, le=999)]


WORK: tuple[type[Action], ...] = (Search, Read, Recall, Compress, Say)
FULL: tuple[type[Action], ...] = (Compress, Say)
SYSTEM = (
    "You answer a question from a long text that you can only search. Each reply is one action, a JSON object:\n"
    + described(*WORK)
    + '\nAn entry of "entries" is {"name": "...", "about": "...", "first": NUMBER, "last": NUMBER}, of turns. '
    "Your window is small: compress before it is full. " + QUOTED
)
TASK = "QUESTION: {question}\nSUMMARY:\n{summary}\nARCHIVED:\n{index}"
STATUS = "\n(context: {used} of {budget} tokens, turn {turn})"
PRESSING = "\n(context: {used} of {budget} tokens: compress now, or answer)"

STEPS = 96
ACTION_TOKENS = 512
PRESSURE = 0.75  # share of the budget from which on only compressing and answering are offered
INDEX = 0.2  # share of the budget that the index may take
PAGE = 0.25  # share of the budget that a page of an entry takes
FAILURES = 3


class Experience:
    """The store: text under names, which never change once they are given. Kept in `path`, or in memory."""

    def __init__(self, path: Path | None = None) -> None:
        try:
            self._db = sqlite3.connect(path or ":memory:", check_same_thread=False)
            with self._db:
                self._db.execute(
                    "CREATE TABLE IF NOT EXISTS experience "
                    "(name TEXT PRIMARY KEY, about TEXT NOT NULL, content TEXT NOT NULL)"
                )
        except sqlite3.Error as error:
            raise LongspanError(f"The experience store {path or 'in memory'} cannot be used: {error}.") from error

    def put(self, name: str, about: str, content: str) -> str:
        """Keep a text; its name, which is the one given or, where that is taken, the next with a number."""
        base, number = name.strip() or "turns", 1
        name = base
        while True:
            try:
                with self._db:
                    self._db.execute("INSERT INTO experience VALUES (?, ?, ?)", (name, about, content))
                return name
            except sqlite3.IntegrityError:
                number += 1
                name = f"{base}-{number}"

    def get(self, name: str) -> str:
        """The text under a name. Raises UsageError for one that nothing was archived under."""
        row = self._db.execute("SELECT content FROM experience WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise UsageError(f"Nothing is archived under {name!r}.")
        return str(row[0])

    def index(self) -> list[tuple[str, str]]:
        """Names and what they are about, in the order of archiving."""
        return [(str(n), str(a)) for n, a in self._db.execute("SELECT name, about FROM experience ORDER BY rowid")]

    def close(self) -> None:
        self._db.close()


@dataclass(slots=True)
class Window:
    """The working context: the task with its indexed summary, and the turns since it was last compressed.

    `budget` is in tokens. `recent` are the lines of the index that are shown.
    """

    question: str
    store: Experience
    llm: LLM
    budget: int
    system: str = SYSTEM
    summary: str = "nothing yet"
    recent: list[tuple[str, str]] = field(default_factory=list)
    turns: list[tuple[str, str]] = field(default_factory=list)
    begun: int = 1  # number of the first turn here
    folded: int = 0
    longest: int = 0
    compressed: int = 0

    def messages(self) -> list[Message]:
        """What the model sees."""
        index = "\n".join(f"{name}: {about}" for name, about in self.recent) or "nothing yet"
        task = TASK.format(question=self.question, summary=self.summary, index=index)
        said = [Message(role="system", content=self.system), Message(role="user", content=task)]
        for action, observation in self.turns:
            said += [Message(role="assistant", content=action), Message(role="user", content=observation)]
        used = self._tokens(said)
        self.longest = max(self.longest, used)
        status = PRESSING if used > PRESSURE * self.budget else STATUS
        told = status.format(used=used, budget=self.budget, turn=self.begun + len(self.turns))
        said[-1] = Message(role=said[-1]["role"], content=said[-1]["content"] + told)
        return said

    def pressed(self) -> bool:
        """Whether it is time to compress."""
        return bool(self.turns) and self._tokens(self.messages()) > PRESSURE * self.budget

    def pressed_by(self, text: str) -> bool:
        """Whether the window would exceed its budget with this text too."""
        return self._tokens(self.messages()) + self.llm.count_tokens(text) + 2 * MESSAGE > self.budget

    def _tokens(self, said: Sequence[Message]) -> int:
        return sum(self.llm.count_tokens(message["content"]) + MESSAGE for message in said) + TEMPLATE

    def add(self, action: str, observation: str) -> None:
        self.turns.append((action, observation))

    def compress(self, summary: str, entries: Sequence[Entry] = ()) -> list[str]:
        """Archive all turns, under the names of `entries` and, those that none covers, under names of their own; the
        names."""
        names: list[str] = []
        covered: set[int] = set()
        for entry in entries:
            numbers = [n for n in range(entry.first, entry.last + 1) if 0 <= n - self.begun < len(self.turns)]
            if numbers:
                names.append(self._archive(entry.name, entry.about, numbers))
                covered.update(numbers)
        rest = [n for n in range(self.begun, self.begun + len(self.turns)) if n not in covered]
        if rest:
            names.append(self._archive(f"turns-{self.compressed + 1}", "what no other name covers", rest))
        self.begun += len(self.turns)
        self.turns, self.summary = [], summary
        self.compressed += 1
        self._fold()
        return names

    def _archive(self, name: str, about: str, numbers: Sequence[int]) -> str:
        content = "\n".join("\n".join(self.turns[n - self.begun]) for n in numbers)
        name = self.store.put(name, about, content)
        self.recent.append((name, about))
        return name

    def _fold(self) -> None:
        """Archive the older half of an index that takes more than its share."""
        while len(self.recent) > 2:
            lines = [f"{name}: {about}" for name, about in self.recent]
            if self.llm.count_tokens("\n".join(lines)) <= INDEX * self.budget:
                return
            half = len(lines) // 2
            self.folded += 1
            name = self.store.put(f"index-{self.folded}", "older names", "\n".join(lines[:half]))
            self.recent = [(name, f"{half} older names, such as {self.recent[0][0]}"), *self.recent[half:]]

    def recall(self, name: str, page: int = 1) -> str:
        """A page of what was archived under a name."""
        try:
            content = self.store.get(name.strip())
        except UsageError as error:
            return str(error)
        pages = paged(content, int(PAGE * self.budget), self.llm)
        if not 1 <= page <= len(pages):
            return f"{name} has {len(pages)} pages."
        return pages[page - 1] + (f"\n(page {page} of {len(pages)})" if len(pages) > 1 else "")


def paged(content: str, tokens: int, llm: LLM) -> list[str]:
    """A text in pages of at most `tokens`: whole lines where they fit, else parts. Joined, the pages are the text."""
    pages = [""]
    for line in content.splitlines(keepends=True):
        if llm.count_tokens(line) <= tokens:
            if pages[-1] and llm.count_tokens(pages[-1] + line) > tokens:
                pages.append("")
            pages[-1] += line
            continue
        while line:  # longer than a page: as much of it as still fits here
            low, high = 0, len(line)
            while low < high:
                middle = (low + high + 1) // 2
                fits = llm.count_tokens(pages[-1] + line[:middle]) <= tokens
                low, high = (middle, high) if fits else (low, middle - 1)
            low = low or (0 if pages[-1] else 1)
            pages[-1] += line[:low]
            line = line[low:]
            if line:
                pages.append("")
    return pages


@register("workflow", "memex", systems=("memex",))
async def memex(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> Answer:
    """An agent searches the text; what no longer fits is archived word for word, under names that it can read again."""
    lines = Lines(await asyncio.to_thread(Atoms.of, corpus, llm))
    store = Experience()
    try:
        window = Window(question, store, llm, _budget(llm))
        text, end = await _steps(window, lines, llm, settings)
    finally:
        store.close()
    note = (
        f"Memex: {window.begun + len(window.turns) - 1} turns, {window.compressed} times compressed, at most "
        f"{window.longest} tokens in the window.{end}"
    )
    refused = text is None or is_nothing(text)
    said = REFUSAL if text is None or refused else text
    citations = [] if refused else await asyncio.to_thread(searched, question, said, corpus, llm)
    if settings.on_text:
        settings.on_text(said)
    return Answer(question, said, refused, citations, "memex", llm.name, note)


def _budget(llm: LLM) -> int:
    """Tokens of the working context: the effective window less the reply."""
    return llm.effective_window - _reply(llm)


def _reply(llm: LLM) -> int:
    return min(ACTION_TOKENS, llm.effective_window // 6)


async def _steps(window: Window, lines: Lines, llm: LLM, settings: Settings) -> tuple[str | None, str]:
    """(The answer, or None where the agent came to none; what a user should know of the end)."""
    working, full = protocol(*WORK), protocol(*FULL)
    in_a_row = 0
    ran: list[str] = []
    for step in range(STEPS):
        pressed = window.pressed()
        try:
            shape = full if pressed else working
            reply = await structured(llm, window.messages(), shape, max_tokens=_reply(llm))
        except BudgetSpent:
            return None, " The budget was spent before there was an answer."
        if reply is None:
            in_a_row += 1
            if in_a_row == FAILURES:
                return None, " It did not keep to the protocol."
            if pressed:  # a summary is not worth losing the run for
                window.compress(window.summary)
            continue
        in_a_row = 0
        action: Action = reply.do  # type: ignore[attr-defined]  # of the shape that `protocol` made
        said = reply.model_dump_json()
        if ran.count(said) >= 3:
            return None, " It went round in circles."
        ran.append(said)
        with span(action.action, "action", action.model_dump()) as here:  # type: ignore[attr-defined]  # all have it
            match action:
                case Say(text=text):
                    return text, ""
                case Compress(summary=summary, entries=entries):
                    here.output = window.compress(summary, entries)
                case Search(query=query):
                    window.add(said, lines.search(query))
                case Read(line=line):
                    window.add(said, lines.read(line))
                case Recall(name=name, page=page):
                    window.add(said, window.recall(name, page))
            if window.turns:
                here.output = window.turns[-1][1]
        if settings.on_progress:
            settings.on_progress("searching, with an archive", step + 1, STEPS)
    return None, f" There was no answer within {STEPS} steps."
