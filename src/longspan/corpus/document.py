"""A document and its passages: exact spans of one text."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Document:
    """A text and where it came from.

    `text` is what every offset refers to: the decoded file itself for text formats (line ends untouched), the
    converted text for PDF, DOCX, EPUB and HTML. `id` is the hash of the source's bytes (and of the conversion's
    version), `kind` one of "text", "markdown", "code", "html". `page_starts` holds the offset at which each page
    begins, empty where the format has no pages. Of a large text's part (see `parts`) `offset` is the number of
    characters of the source before it, and `line` the number of the line that it begins in.
    """

    id: str
    name: str
    text: str
    kind: str = "text"
    page_starts: tuple[int, ...] = ()
    offset: int = 0
    line: int = 1

    @cached_property
    def line_starts(self) -> array[int]:
        """Offsets of line beginnings; lines end at \\n, \\r\\n or \\r."""
        starts = array("q", [0])  # a list would take five times the room
        starts.extend(end.end() for end in _LINE_END.finditer(self.text))
        return starts

    def line_of(self, offset: int) -> int:
        """The 1-based number, in the source, of the line in which the character `text[offset]` stands."""
        return self.line - 1 + bisect_right(self.line_starts, offset)

    def page_of(self, offset: int) -> int | None:
        """The 1-based page of `offset`, or None where there are no pages."""
        return bisect_right(self.page_starts, offset) or None if self.page_starts else None


@dataclass(frozen=True, slots=True)
class Passage:
    """A span `text[start:end]` of a document, cut at structure, within a token budget.

    `tokens` is its length by the reader model's tokenizer; `heading` the heading path above it ("" where none), so
    that a passage can be found by the section it stands in.
    """

    document: str
    start: int
    end: int
    line_start: int
    line_end: int
    tokens: int
    heading: str = ""
    page: int | None = None
