"""What a workflow gives back, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from longspan.corpus import Document
from longspan.retrieval import Encoder
from longspan.trace import Span, Usage
from longspan.workflows.budget import Budget

ReaderName = Literal["auto", "extract", "generate"]


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a claim stands: `quote` is exactly the characters `start:end` of the source named `document`.

    Lines count from 1; `page` is None where the format has none. `score` (0 to 1) is the reader's confidence that the
    quote answers the question.
    """

    document: str
    start: int
    end: int
    line_start: int
    line_end: int
    quote: str
    score: float
    page: int | None = None

    @classmethod
    def of(cls, document: Document, start: int, end: int, score: float) -> Citation:
        """Of `document.text[start:end]`."""
        return cls(
            document.name,
            document.offset + start,
            document.offset + end,
            document.line_of(start),
            document.line_of(max(start, end - 1)),
            document.text[start:end],
            round(score, 4),
            document.page_of(start),
        )

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Answer:
    """An answer with its evidence and its cost.

    `refused` says that the text was found not to hold the answer (`text` then says so in a sentence, and `citations`
    show what came nearest). `note` tells what a user should know about how the text was read: which workflow and
    reader and why, what was not read.
    """

    question: str
    text: str
    refused: bool
    citations: list[Citation]
    workflow: str
    model: str
    note: str = ""
    usage: Usage = field(default_factory=Usage)
    trace: Span | None = None

    def to_dict(self) -> dict[str, Any]:
        """The object that `longspan ask --json` prints."""
        return {
            "question": self.question,
            "answer": self.text,
            "refused": self.refused,
            "citations": [citation.to_dict() for citation in self.citations],
            "usage": self.usage.to_dict(),
            "workflow": self.workflow,
            "model": self.model,
            "note": self.note,
        }


@dataclass(slots=True)
class Settings:
    """What every workflow may be told besides question, corpus and model.

    `reader` "auto" takes the one known to suit the model. `max_tokens` bounds the generated answer. `budget` bounds the
    whole run (a number alone: its tokens, read and written); None is no bound. `on_text` receives the answer as it is
    made, `on_progress(what, done, total)` the long steps before it.
    """

    reader: ReaderName = "auto"
    max_tokens: int = 256
    budget: Budget | int | None = None
    on_text: Callable[[str], None] | None = None
    on_progress: Callable[[str, int, int], None] | None = None
    encoder: Encoder = field(default_factory=Encoder)
