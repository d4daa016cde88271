"""A corpus as a row of small pieces with their sizes: what is split by arithmetic alone, and searched by words.

A `Part` is a run of pieces. Its tokens are the sum of its pieces', each counted with the blanks behind it (many become
an empty line) and with what a tokenizer may do at the seam, so that a part has no more tokens than it says.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from longspan.corpus import Corpus, Document, Passage, passages, sentences
from longspan.llm import LLM
from longspan.workflows.words import STOP, content_words, stems

ATOM_TOKENS = 64
SEAM = 1  # token that joining two pieces may add
BETWEEN = "\n\n"  # documents in one part, and in place of many blanks
BLANKS = 32  # characters between two pieces that are kept as they are
K1, B = 1.2, 0.75  # BM25 (Robertson & Zaragoza 2009), the usual constants
RARE = 3  # pieces: a word that stands in no more is followed to where else it stands
ECHO = 0.5  # weight of a word that was found, beside one of the question


@dataclass(frozen=True, slots=True)
class Part:
    """The pieces `first` to `last` (exclusive), together at most `tokens` long; `question` is what is asked of it where
    that is not the run's question."""

    first: int
    last: int
    tokens: int
    question: str | None = None


@dataclass(slots=True)
class Atoms:
    """The pieces of a corpus in reading order. Make them with `Atoms.of`."""

    corpus: Corpus
    found: list[Passage]
    ends: list[int]  # ends[i]: tokens of the first i pieces
    _stems: list[list[str]] | None = field(default=None, repr=False)
    _scores: dict[tuple[str, int], list[float]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, corpus: Corpus, llm: LLM) -> Atoms:
        pieces: list[Passage] = []
        sizes: list[int] = []
        for document in corpus.documents():
            here = list(passages(document, llm.count_batch, ATOM_TOKENS))
            following = [*here[1:], None]
            texts = [
                document.text[piece.start : piece.end] + _between(document, piece, after)
                for piece, after in zip(here, following, strict=True)
            ]
            pieces += here
            sizes += [count + SEAM for count in llm.count_batch(texts)]
        ends = [0]
        for size in sizes:
            ends.append(ends[-1] + size)
        return cls(corpus, pieces, ends)

    @property
    def whole(self) -> Part:
        return Part(0, len(self.found), self.ends[-1])

    @property
    def slack(self) -> int:
        """The largest piece, in tokens: how much a part may be larger than an even share."""
        return max((b - a for a, b in zip(self.ends, self.ends[1:], strict=False)), default=1)

    def split(self, part: Part, k: int) -> list[Part]:
        """At most `k` parts, each of at most ceil(tokens / k) + slack tokens; a part of one piece stays whole."""
        begin, total = self.ends[part.first], self.ends[part.last] - self.ends[part.first]
        cuts = [part.first]
        for i in range(1, k):
            cut = bisect_left(self.ends, begin + total * i / k, part.first, part.last)
            cuts.append(max(cut, cuts[-1]))
        cuts.append(part.last)
        return [replace(part, first=a, last=b, tokens=self.ends[b] - self.ends[a]) for a, b in pairwise(cuts) if a < b]

    def peek(self, part: Part, tokens: int) -> Part:
        """The beginning of a part: the pieces that `tokens` hold, at least one."""
        last = bisect_left(self.ends, self.ends[part.first] + tokens + 1, part.first + 1, part.last + 1) - 1
        last = max(last, part.first + 1)
        return replace(part, last=last, tokens=self.ends[last] - self.ends[part.first])

    def passages_of(self, part: Part) -> list[Passage]:
        """A part as passages, one for each document that it reaches into."""
        out: list[Passage] = []
        for piece in self.found[part.first : part.last]:
            if out and out[-1].document == piece.document:
                tokens = out[-1].tokens + piece.tokens
                out[-1] = replace(out[-1], end=piece.end, line_end=piece.line_end, tokens=tokens)
            else:
                out.append(piece)
        return out

    def text(self, part: Part) -> str:
        out: list[str] = []
        pieces = self.found[part.first : part.last]
        for piece, after in zip(pieces, [*pieces[1:], None], strict=True):
            document = self.corpus.document(piece.document)
            out += [document.text[piece.start : piece.end], _between(document, piece, after) if after else ""]
        return "".join(out)

    # -- search by words ---------------------------------------------------------------------------------------------

    def score(self, part: Part, question: str, hops: int) -> float:
        """How well the best piece of a part fits the question by its words; see `scores`."""
        return max(self.scores(question, hops)[part.first : part.last], default=0.0)

    def scores(self, question: str, hops: int = 0) -> list[float]:
        """BM25 of each piece for the question's words, and for its neighbouring words as they stand side by side.

        Nothing but the question is searched for. With `hops`, the rare words of the sentences found are searched too,
        as many times over (a variable that is assigned another's value, a name in two places).
        """
        if (question, hops) not in self._scores:
            terms = Counter(dict.fromkeys(terms_of(question), 1.0))
            scored = self._bm25(terms)
            for _ in range(hops):
                linked = self._linked(scored, terms)
                if not linked:
                    break
                terms.update(linked)
                scored = self._bm25(terms)
            self._scores[question, hops] = scored
        return self._scores[question, hops]

    def rarity(self, question: str) -> dict[str, float]:
        """The question's stems weighted by how few pieces have them."""
        wanted = dict.fromkeys(stem for word in content_words(question) for stem in stems(word))
        counts = dict.fromkeys(wanted, 0)
        for words in self._all():
            for stem in counts.keys() & set(words):
                counts[stem] += 1
        total = len(self.found)
        return {stem: math.log(1 + (total + 1) / (count + 0.5)) for stem, count in counts.items()}

    def _all(self) -> list[list[str]]:
        if self._stems is None:
            self._stems = []
            for piece in self.found:
                self._stems.append(stems(self.corpus.document(piece.document).text[piece.start : piece.end]))
        return self._stems

    def _bm25(self, terms: Counter[str]) -> list[float]:
        frequencies: list[Counter[str]] = []
        lengths: list[int] = []
        paired = {tuple(term.split(" ")) for term in terms if " " in term}
        for words in self._all():
            found = Counter(word for word in words if word in terms)
            if paired and found:
                found.update(" ".join(pair) for pair in pairwise(words) if pair in paired)
            frequencies.append(found)
            lengths.append(len(words))
        total, mean = len(lengths), sum(lengths) / max(len(lengths), 1) or 1.0
        in_pieces = Counter(term for found in frequencies for term in found)
        idf = {term: math.log(1 + (total - n + 0.5) / (n + 0.5)) * terms[term] for term, n in in_pieces.items()}
        return [
            sum(
                idf[term] * count * (K1 + 1) / (count + K1 * (1 - B + B * length / mean))
                for term, count in found.items()
            )
            for found, length in zip(frequencies, lengths, strict=True)
        ]

    def _linked(self, scored: Sequence[float], terms: Counter[str]) -> dict[str, float]:
        """The rare words of the sentences that made the best pieces so, which are not searched for yet."""
        best = max(scored, default=0.0)
        in_pieces = Counter(word for words in self._all() for word in set(words))
        linked: dict[str, float] = {}
        rarest = min((in_pieces[term] for term in terms if in_pieces[term]), default=0)
        anchors = {term for term in terms if in_pieces[term] <= max(rarest, RARE)}
        for piece, score in zip(self.found, scored, strict=True):
            if not best or score < best / 4:
                continue
            text = self.corpus.document(piece.document).text
            for sentence in sentences(text, piece.start, piece.end):
                words = set(stems(text[sentence.start : sentence.end]))
                if words & anchors:
                    linked |= {
                        word: ECHO
                        for word in words
                        if word not in terms and word not in STOP and in_pieces[word] <= RARE
                    }
        return linked


def _between(document: Document, piece: Passage, after: Passage | None) -> str:
    """What stands between a piece and the next."""
    if after is None or after.document != piece.document or after.start - piece.end > BLANKS:
        return BETWEEN
    return document.text[piece.end : after.start]


def terms_of(question: str) -> list[str]:
    """The stems of the question's content words, and pairs of those that stand side by side in it."""
    single = [stem for word in content_words(question) for stem in stems(word)]
    words = stems(question)
    pairs = [f"{a} {b}" for a, b in pairwise(words) if a in single and b in single]
    return list(dict.fromkeys([*single, *pairs]))
