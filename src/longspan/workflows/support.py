"""Attribution: which quoted units carry a generated claim."""

from __future__ import annotations

from collections.abc import Sequence

from longspan.corpus import Corpus, Passage
from longspan.llm import LLM
from longspan.workflows.answer import Citation
from longspan.workflows.atoms import Atoms
from longspan.workflows.passages import Unit, units
from longspan.workflows.words import STOP, stems

SUPPORTED = 0.5  # a claim is supported when one unit holds at least half of its content words


def support(claim: str, corpus: Corpus, found: Sequence[Passage]) -> tuple[Unit, float] | None:
    """The unit that holds most of the claim's content words (numbers weigh double), with that share (0 to 1).

    None when the claim has no content words or there are no units.
    """
    weights = {stem: 2.0 if any(c.isdigit() for c in stem) else 1.0 for stem in stems(claim) if stem not in STOP}
    total = sum(weights.values())
    best: tuple[Unit, float] | None = None
    if total:
        for unit in units(corpus, found):
            present = set(stems(unit.text))
            share = sum(weight for stem, weight in weights.items() if stem in present) / total
            if best is None or share > best[1]:
                best = (unit, share)
    return best


def citations_of(text: str, corpus: Corpus, found: Sequence[Passage]) -> list[Citation]:
    """The units that carry the sentences of a text, each once, in the order of the text."""
    cited: dict[tuple[str, int], Citation] = {}
    for claim in text.replace("\n", " ").split(". "):
        where = support(claim, corpus, found)
        if where and where[1] >= SUPPORTED:
            unit, share = where
            cited.setdefault((unit.document.id, unit.start), Citation.of(unit.document, unit.start, unit.end, share))
    return list(cited.values())


SEARCHED = 16  # pieces of the text in which an answer's sentences are looked for


def searched(question: str, text: str, corpus: Corpus, llm: LLM) -> list[Citation]:
    """Quotes for an answer that came without any: the units of the text's best pieces by the words of both."""
    atoms = Atoms.of(corpus, llm)
    scores = atoms.scores(f"{question} {text}")
    best = sorted(range(len(scores)), key=lambda at: -scores[at])[:SEARCHED]
    return citations_of(text, corpus, [atoms.found[at] for at in sorted(best) if scores[at] > 0])
