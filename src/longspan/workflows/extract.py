"""The reader for small models: it chooses verbatim quotes instead of writing.

A model of 135 M parameters that is given the right passage still writes wrong answers, and invents one when there is
none; what it does well is to say how likely a question is after a text. So every unit (sentence, item, row) of the
passages found, quoted with its neighbours, is scored as evidence for the question by

- *unit*: the encoder's cosine of the question with the unit, under its lead,
- *passage*: the same with the whole passage,
- *words*: the share of the question's words, weighted by rarity, that stand in the quote or above it,
- *own*: the same with the unit alone,
- *model*: log P(question | quote) - log P(question), as a mean over the question's tokens, each bounded (`BOUNDS`) so
  that one token cannot decide. To read all units would take a minute: only the `READ` best by the others are read.

The score is linear; its weights are those of a conditional logit (which of the question's quotes holds the answer?).
Whether to refuse is a logistic regression on

- *nearness*: the cosine of each word piece of the question, in its context, with the nearest word piece of the best
  quote, as a mean (the late interaction of ColBERT, arXiv:2004.12832, with an encoder that was not trained for it),
- *least*: the smallest of these cosines, in the best quote's whole passage,
- *lead*: the best quote's score over that of the best of another passage,
- *number*: whether a number is asked for that the best quote does not have (`lacks_number`).

Both were fitted on the development questions by benchmarks/ask/calibrate.py.
"""

from __future__ import annotations

import asyncio
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
import numpy.typing as npt

from longspan.corpus import Corpus, Document, Passage, Sentence, sentences
from longspan.llm import LLM, Scorer
from longspan.retrieval import Hit, Index
from longspan.workflows.answer import Citation, Settings
from longspan.workflows.budget import BudgetSpent
from longspan.workflows.generate import REFUSAL
from longspan.workflows.passages import Unit, flat, units
from longspan.workflows.question import lacks_number
from longspan.workflows.words import content_words, stems

Features = npt.NDArray[np.float64]

FEATURES = ("unit", "passage", "words", "own", "model")
EVIDENCE = ("nearness", "least", "lead", "number", "constant")


@dataclass(frozen=True, slots=True)
class Weights:
    """`quote` weighs FEATURES, `stated` weighs EVIDENCE."""

    quote: Features
    stated: Features


# Without the model's reading: what is worth reading, and all there is for an LLM that cannot score.
SEARCH = Weights(np.array([7.13, 10.66, 9.01, 4.93, 0.0]), np.array([7.27, 6.88, 0.39, -2.42, -6.57]))
MODEL = Weights(np.array([4.43, 5.69, 5.63, 2.74, 4.83]), np.array([7.51, 6.73, 0.42, -2.44, -6.72]))
REFUSE_BELOW = 0.5
READ = 12
BOUNDS = (-1.0, 3.0)  # nats
QUOTE_WORDS = 100
AROUND = 1000  # characters before and after a passage that a quote may grow into
QUOTES = 3
CLEAR = 0.6  # share of the probability above which the first quote stands alone


@dataclass(frozen=True, slots=True)
class Quote:
    """A unit with the neighbours that it is quoted with: `document.text[start:end]`."""

    unit: Unit
    start: int
    end: int

    @property
    def document(self) -> Document:
        return self.unit.document

    @property
    def text(self) -> str:
        return self.document.text[self.start : self.end]

    @property
    def lead(self) -> str:
        """What the quote stands under, where that is not in the quote itself."""
        return self.unit.lead if self.unit.lead_end <= self.start else ""

    @property
    def context(self) -> str:
        """The quote as it is read: on one line, below its heading and lead."""
        heading = self.unit.passage.heading.rpartition(" > ")[2]
        above = [f"{heading}:" if heading else "", flat(self.lead)]
        return " ".join(part for part in (*above, flat(self.text)) if part)


@dataclass(frozen=True, slots=True)
class Ranked:
    """Quotes, best first; `scores` are natural log odds among each other; `stated` is the probability that the
    passages found hold the answer; `read` is how many quotes the model has scored."""

    quotes: list[Quote]
    scores: list[float]
    stated: float
    read: int

    def passages(self) -> list[Passage]:
        """The passages of the quotes, each once, best first."""
        return list(dict.fromkeys(quote.unit.passage for quote in self.quotes))


def quotes_of(document: Document, passage: Passage, near: Sequence[float], words: int = QUOTE_WORDS) -> list[Quote]:
    """Each unit of the passage with its neighbours, up to `words` words.

    A quote grows by the neighbour that is nearer to the question (`near`, one value for each unit), first in its
    paragraph, then in its section, also where that is in the next passage.
    """
    text = document.text
    inside = sentences(text, passage.start, passage.end)
    begin, end = max(0, passage.start - AROUND), min(len(text), passage.end + AROUND)
    before = sentences(text, begin, passage.start)[begin > 0 :]  # without one that `begin` cuts
    after = sentences(text, passage.end, end)
    found = [*before, *inside, *(after[:-1] if end < len(text) else after)]
    relevance = [-1.0] * len(before) + list(near) + [-1.0] * len(after)
    lengths = [len(text[unit.start : unit.end].split()) for unit in found]
    titles = [_is_title(text, unit) for unit in found]
    breaks = [_PARAGRAPH.search(text, a.end, b.start) is not None for a, b in pairwise(found)]

    def grown(at: int) -> tuple[int, int]:
        first, last, left = at, at, words - lengths[at]
        for paragraph in (True, False):
            while sides := [
                other
                for other, between, upper in ((first - 1, first - 1, first), (last + 1, last, last + 1))
                if 0 <= other < len(found)
                and lengths[other] <= left
                and not titles[upper]
                and not (paragraph and breaks[between])
            ]:
                other = max(sides, key=lambda side: relevance[side])
                first, last, left = min(first, other), max(last, other), left - lengths[other]
        return found[first].start, found[last].end

    return [
        Quote(Unit(document, passage, *found[at]), *grown(at)) for at in range(len(before), len(before) + len(inside))
    ]


_PARAGRAPH = re.compile(r"(?:\r\n|\r|\n)[^\S\r\n]*(?:\r\n|\r|\n)")
_BEFORE = re.compile(r"(?:\A|(?:\r\n|\r|\n)[^\S\r\n]*(?:\r\n|\r|\n))[^\S\r\n]*\Z")
_AFTER = re.compile(r"[^\S\r\n]*(?:\r\n|\r|\n)[^\S\r\n]*(?:\r\n|\r|\n|[=\-~*^\"'+#]{3,})")


def _is_title(text: str, unit: Sentence) -> bool:
    """Whether the unit stands alone like a heading: a quote may begin with it, but not run into or past it."""
    line = text[unit.start : unit.end]
    return (
        len(line) <= 80
        and line[-1] not in ".;,:!?|"
        and _BEFORE.search(text[max(0, unit.start - 80) : unit.start]) is not None
        and _AFTER.match(text, unit.end) is not None
    )


def candidates(question: str, hits: Sequence[Hit], index: Index) -> tuple[list[Quote], Features]:
    """All units of the passages found as quotes, and their features but the model's (which is 0)."""
    found = units(index.corpus, [hit.passage for hit in hits])
    if not found:
        return [], np.zeros((0, len(FEATURES)))
    vectors = index.encoder([question, *(flat(f"{unit.lead} {unit.text}") for unit in found)])
    cosine = (vectors[1:] @ vectors[0]).tolist()
    weight = rarity(question, hits, index.corpus)
    total = sum(weight.values())
    quotes: list[Quote] = []
    features = np.zeros((len(found), len(FEATURES)))
    for hit in hits:
        document, here = index.corpus.document(hit.passage.document), len(quotes)
        inside = sum(unit.passage is hit.passage for unit in found)
        for quote in quotes_of(document, hit.passage, cosine[here : here + inside]):
            present = set(stems(f"{hit.passage.heading} {quote.lead} {quote.text}"))
            own = set(stems(quote.unit.text))
            covered = (sum(value for stem, value in weight.items() if stem in found) for found in (present, own))
            words = [share / total if total else 0.0 for share in covered]
            features[len(quotes)] = (cosine[len(quotes)], hit.cosine, *words, 0.0)
            quotes.append(quote)
    return quotes, features


def rarity(question: str, hits: Sequence[Hit], corpus: Corpus) -> dict[str, float]:
    """The question's stems, weighted by how few of the passages found have them."""
    wanted = dict.fromkeys(stem for word in content_words(question) for stem in stems(word))
    counts = dict.fromkeys(wanted, 0)
    for hit in hits:
        text = corpus.document(hit.passage.document).text[hit.passage.start : hit.passage.end]
        for stem in set(stems(f"{hit.passage.heading} {text}")) & counts.keys():
            counts[stem] += 1
    return {stem: math.log(1 + (len(hits) + 1) / (count + 0.5)) for stem, count in counts.items()}


async def rank(
    question: str, hits: Sequence[Hit], index: Index, llm: LLM, settings: Settings, *, with_model: bool
) -> Ranked:
    """The quotes of the passages found, best first; with `with_model` read by the model, if it can score."""
    quotes, features = await asyncio.to_thread(candidates, question, hits, index)
    weights, read = SEARCH, 0
    scores = features @ weights.quote
    order = np.argsort(-scores, kind="stable")
    if with_model and isinstance(llm, Scorer) and quotes:
        with suppress(BudgetSpent):  # then it has read nothing, as the note will say
            worth = order[:READ]
            features[worth, -1] = await gains(question, [quotes[i].context for i in worth], llm)
            weights, read = MODEL, len(worth)
            scores = features @ weights.quote
            order = worth[np.argsort(-scores[worth], kind="stable")]
    best = [quotes[i] for i in order]
    ranked = [float(scores[i]) for i in order]
    near = await asyncio.to_thread(nearness, question, best[0], index) if best else (0.0, 0.0)
    found = evidence(question, best, ranked, near) @ weights.stated
    return Ranked(best, ranked, 1.0 / (1.0 + math.exp(-found)), read)


def nearness(question: str, quote: Quote, index: Index) -> tuple[float, float]:
    """EVIDENCE's first two: how near the question's word pieces come to those of the quote on average, and the farthest
    of them to those of its passage."""
    passage = quote.unit.passage
    whole = quote.document.text[passage.start : passage.end]
    asked, quoted, around = index.encoder.pieces([question, quote.context, f"{passage.heading} {whole}"])
    if not len(asked):  # such as a question of control characters
        return 0.0, 0.0
    return float((asked @ quoted.T).max(1, initial=-1.0).mean()), float((asked @ around.T).max(1, initial=-1.0).min())


def evidence(
    question: str, quotes: Sequence[Quote], scores: Sequence[float], nearness: tuple[float, float]
) -> Features:
    """What tells whether the answer is there at all, [len(EVIDENCE)], from the quotes in their order, their scores, and
    the `nearness` of the first."""
    if not quotes:
        return np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    first = quotes[0].unit.passage
    others = [score for quote, score in zip(quotes, scores, strict=True) if quote.unit.passage != first]
    lead = min(scores[0] - others[0], 4.0) if others else 4.0
    return np.array([*nearness, lead, float(lacks_number(question, quotes[0].text)), 1.0])


async def gains(question: str, contexts: Sequence[str], scorer: Scorer) -> list[float]:
    """log P(question | context) - log P(question) for each context, bounded, in nats a token of the question."""
    scored = await scorer.loglikelihood([(READING.format(text), f" {question}") for text in ("", *contexts)])
    alone, *within = (np.array(tokens) for tokens in scored)
    return [float(np.clip(tokens - alone, *BOUNDS).mean()) for tokens in within]


READING = "Passage: {}\nQuestion:"


def extract(ranked: Sequence[Ranked], settings: Settings) -> tuple[str, bool, list[Citation]]:
    """The answer in the text's own words: (text, refused, citations).

    `ranked` is of each thing asked for. The best quote of each, and the best of another passage where the first is not
    clearly ahead; it is refused if none has an answer. The best quotes of all are cited first.
    """
    places = [list(islice(_places(one), QUOTES)) for one in ranked]
    citations: dict[tuple[str, int, int], Citation] = {}
    for turn in range(QUOTES):
        for one, found in zip(ranked, places, strict=True):
            if turn < len(found):
                quote, likely = found[turn]
                key = (quote.document.id, quote.start, quote.end)
                cited = Citation.of(quote.document, quote.start, quote.end, one.stated * likely)
                citations.setdefault(key, cited)
    number = {key: at for at, key in enumerate(citations, 1)}
    answers: list[str] = []
    for one, found in zip(ranked, places, strict=True):
        if one.stated < REFUSE_BELOW or not found:
            continue
        told = found[: 1 if found[0][1] >= CLEAR else 2]
        texts = [f"{shown(quote)} [{number[quote.document.id, quote.start, quote.end]}]" for quote, _ in told]
        answers.append("\n\nor:\n\n".join(texts))
    text = "\n\nand:\n\n".join(dict.fromkeys(answers)) or REFUSAL
    if settings.on_text:
        settings.on_text(text)
    return text, not answers, list(citations.values())


def _places(ranked: Ranked) -> Iterator[tuple[Quote, float]]:
    """The best quote of each passage, the best first, and how likely it is that the answer is in that passage."""
    share = np.exp(np.array(ranked.scores) - max(ranked.scores, default=0.0))
    share /= share.sum()
    places: dict[Passage, list[int]] = {}
    for at, quote in enumerate(ranked.quotes):
        places.setdefault(quote.unit.passage, []).append(at)
    for found in places.values():
        yield ranked.quotes[found[0]], float(share[found].sum())


def shown(quote: Quote) -> str:
    """The quote for reading: its own lines without their common indentation, below its lead."""
    first = quote.document.text.rfind("\n", 0, quote.start) + 1
    margin = quote.document.text[first : quote.start]
    text = textwrap.dedent(margin + quote.text) if not margin.strip() else quote.text
    lead = flat(quote.lead)
    return f"{lead}\n{text}" if lead else text
