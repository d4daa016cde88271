"""The reader for small models: it chooses verbatim quotes instead of writing.

A model of 135 M parameters that is given the right passage still writes wrong answers, and invents one when there is
none; what it does well is to say how likely a question is after a text. So every unit (sentence, item, row) of the
passages found, quoted with its neighbours, is scored as evidence for the question by

- *unit*: the encoder's cosine of the question with the unit, under its lead,
- *passage*: the same with the whole passage,
- *words*: the share of the question's words, weighted by rarity, that stand in the quote or above it,
- *model*: log P(question | quote) - log P(question), as a mean over the question's tokens, each bounded (`BOUNDS`) so
  that one token cannot decide. To read all units would take a minute: only the `READ` best by the other three are read.

The score is linear; its weights are those of a conditional logit (which of the question's quotes holds the answer?),
and whether to refuse is a logistic regression. Both were fitted on the development questions by
benchmarks/ask/calibrate.py.
"""

from __future__ import annotations

import asyncio
import math
import re
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longspan.corpus import Corpus, Document, Passage
from longspan.llm import LLM, Scorer
from longspan.retrieval import Hit, Index
from longspan.workflows.answer import Citation, Settings
from longspan.workflows.budget import BudgetSpent
from longspan.workflows.generate import REFUSAL
from longspan.workflows.passages import Unit, flat, units
from longspan.workflows.words import content_words, stems

Features = npt.NDArray[np.float64]

FEATURES = ("unit", "passage", "words", "model")
EVIDENCE = ("passage", "lead", "words", "constant")


@dataclass(frozen=True, slots=True)
class Weights:
    """`quote` weighs FEATURES, `stated` weighs EVIDENCE."""

    quote: Features
    stated: Features


# Without the model's reading: what is worth reading, and all there is for an LLM that cannot score.
SEARCH = Weights(np.array([9.2, 7.0, 8.4, 0.0]), np.array([6.0, 0.5, 1.0, -4.0]))
MODEL = Weights(np.array([5.7, 4.1, 4.6, 3.7]), np.array([6.0, 0.5, 1.0, -4.0]))
REFUSE_BELOW = 0.5
READ = 24
BOUNDS = (-1.0, 3.0)  # nats
QUOTE_WORDS = 100  # a quote is the unit and its neighbours in the passage up to this length
QUOTES = 3


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


def quotes_of(found: Sequence[Unit], words: int = QUOTE_WORDS) -> list[Quote]:
    """Each unit with its neighbours in the passage, up to `words` words: its own paragraph first."""
    lengths = [len(unit.text.split()) for unit in found]
    quotes = []
    for at, unit in enumerate(found):
        first, last, left = at, at, words - lengths[at]
        for beyond in (False, True):
            growing = [1, -1]  # by turns forward and back
            while growing:
                step = growing.pop(0)
                other = last + 1 if step == 1 else first - 1
                if not 0 <= other < len(found) or found[other].passage is not unit.passage or lengths[other] > left:
                    continue
                near, far = (found[last], found[other]) if step == 1 else (found[other], found[first])
                if not beyond and _PARAGRAPH.search(unit.document.text, near.end, far.start):
                    continue
                first, last, left = min(first, other), max(last, other), left - lengths[other]
                growing.append(step)
        quotes.append(Quote(unit, found[first].start, found[last].end))
    return quotes


_PARAGRAPH = re.compile(r"(?:\r\n|\r|\n)[^\S\r\n]*(?:\r\n|\r|\n)")


def candidates(question: str, hits: Sequence[Hit], index: Index) -> tuple[list[Quote], Features]:
    """All units of the passages found as quotes, and their features but the model's (which is 0)."""
    found = units(index.corpus, [hit.passage for hit in hits])
    if not found:
        return [], np.zeros((0, len(FEATURES)))
    quotes = quotes_of(found)
    hit_of = {id(hit.passage): hit for hit in hits}
    vectors = index.encoder([question, *(flat(f"{unit.lead} {unit.text}") for unit in found)])
    cosine = vectors[1:] @ vectors[0]
    weight = rarity(question, hits, index.corpus)
    total = sum(weight.values())
    features = np.zeros((len(quotes), len(FEATURES)))
    for row, (quote, near) in enumerate(zip(quotes, cosine, strict=True)):
        hit = hit_of[id(quote.unit.passage)]
        present = set(stems(f"{hit.passage.heading} {quote.lead} {quote.text}"))
        covered = sum(value for stem, value in weight.items() if stem in present) / total if total else 0.0
        features[row] = (near, hit.cosine, covered, 0.0)
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
    found = evidence(hits, best, ranked) @ weights.stated
    return Ranked(best, ranked, 1.0 / (1.0 + math.exp(-found)), read)


def evidence(hits: Sequence[Hit], quotes: Sequence[Quote], scores: Sequence[float]) -> Features:
    """What tells whether the answer is there at all, [len(EVIDENCE)]: how near the nearest passage is, the lead of the
    best quote over the best of another passage, and the lead of BM25's first passage over its fifth."""
    if not quotes:
        return np.array([0.0, 0.0, 0.0, 1.0])
    others = [
        score for quote, score in zip(quotes, scores, strict=True) if quote.unit.passage != quotes[0].unit.passage
    ]
    lead = min(scores[0] - others[0], 4.0) if others else 4.0
    words = sorted((hit.bm25 or 0.0 for hit in hits), reverse=True) + [0.0] * 5
    return np.array([max(hit.cosine for hit in hits), lead, 1.0 - words[4] / words[0] if words[0] else 0.0, 1.0])


async def gains(question: str, contexts: Sequence[str], scorer: Scorer) -> list[float]:
    """log P(question | context) - log P(question) for each context, bounded, in nats a token of the question."""
    scored = await scorer.loglikelihood([(READING.format(text), f" {question}") for text in ("", *contexts)])
    alone, *within = (np.array(tokens) for tokens in scored)
    return [float(np.clip(tokens - alone, *BOUNDS).mean()) for tokens in within]


READING = "Passage: {}\nQuestion:"


async def extract(
    question: str, ranked: Ranked, corpus: Corpus, llm: LLM, settings: Settings
) -> tuple[str, bool, list[Citation]]:
    """The answer in the text's own words: (text, refused, citations)."""
    if not ranked.quotes:
        return _said(REFUSAL, settings), True, []
    share = np.exp(np.array(ranked.scores) - max(ranked.scores))
    share /= share.sum()
    best: dict[Passage, int] = {}  # the best quote of each passage, by its place in the ranking
    for at, quote in enumerate(ranked.quotes):
        best.setdefault(quote.unit.passage, at)
    citations = []
    for passage, at in list(best.items())[:QUOTES]:
        same = [i for i, quote in enumerate(ranked.quotes) if quote.unit.passage is passage]
        quote = ranked.quotes[at]
        citations.append(Citation.of(quote.document, quote.start, quote.end, ranked.stated * float(share[same].sum())))
    if ranked.stated < REFUSE_BELOW:
        return _said(REFUSAL, settings), True, citations
    return _said(f"{shown(ranked.quotes[0])} [1]", settings), False, citations


def shown(quote: Quote) -> str:
    """The quote for reading: its own lines without their common indentation, below its lead."""
    first = quote.document.text.rfind("\n", 0, quote.start) + 1
    margin = quote.document.text[first : quote.start]
    text = textwrap.dedent(margin + quote.text) if not margin.strip() else quote.text
    lead = flat(quote.lead)
    return f"{lead}\n{text}" if lead else text


def _said(text: str, settings: Settings) -> str:
    if settings.on_text:
        settings.on_text(text)
    return text
