"""Passages on their way to a reader: neighbours joined, cut into units, packed into a token budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from longspan.corpus import Corpus, Document, Passage, passages, sentences


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest thing worth quoting: a sentence, a list item, a term with its definition, a table row.

    `document.text[start:end]` is the unit itself; `passage` is where it was found.
    """

    document: Document
    passage: Passage
    start: int
    end: int
    lead_start: int = 0
    lead_end: int = 0

    @property
    def text(self) -> str:
        return self.document.text[self.start : self.end]

    @property
    def lead(self) -> str:
        """What the unit stands under: the sentence that introduces its list, the term that it defines; or ""."""
        return self.document.text[self.lead_start : self.lead_end]


def flat(text: str) -> str:
    """The text on one line, for a prompt or for reading."""
    return " ".join(text.split())


def units(corpus: Corpus, found: Iterable[Passage]) -> list[Unit]:
    """All units of the passages, passage by passage in the order given."""
    out = []
    for passage in found:
        document = corpus.document(passage.document)
        out += [Unit(document, passage, *found) for found in sentences(document.text, passage.start, passage.end)]
    return out


def _joined(left: Passage, right: Passage) -> Passage:
    return replace(left, end=right.end, line_end=right.line_end, tokens=left.tokens + right.tokens)


def join_neighbours(corpus: Corpus, ranking: Sequence[Passage]) -> list[Passage]:
    """Passages with nothing but white space between them joined to one, which has the rank of its best."""
    rank = {passage: number for number, passage in enumerate(ranking)}
    joined: list[tuple[int, Passage]] = []
    for passage in sorted(ranking, key=lambda passage: (passage.document, passage.start)):
        if joined:
            best, last = joined[-1]
            between = (last.end, passage.start)
            if last.document == passage.document and not corpus.document(last.document).text[slice(*between)].strip():
                joined[-1] = (min(best, rank[passage]), _joined(last, passage))
                continue
        joined.append((rank[passage], passage))
    return [passage for _, passage in sorted(joined, key=lambda item: item[0])]


def pack(ranking: Sequence[Passage], tokens: Sequence[int], budget: int) -> list[Passage]:
    """The best of a ranking that fit `budget` together, given what each takes (one too long is passed over)."""
    chosen, spent = [], 0
    for passage, length in zip(ranking, tokens, strict=True):
        if spent + length <= budget:
            chosen.append(passage)
            spent += length
    return chosen


def everything(corpus: Corpus, count_tokens: Callable[[list[str]], list[int]], budget: int) -> Iterator[Passage]:
    """The whole corpus in reading order, in spans of at most `budget` tokens; never across documents."""
    for document in corpus.documents():
        part: Passage | None = None
        for passage in passages(document, count_tokens, min(budget, 256)):
            if part and part.tokens + passage.tokens <= budget:
                part = _joined(part, passage)
                continue
            if part:
                yield part
            part = passage
        if part:
            yield part
