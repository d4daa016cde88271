"""Search, re-rank, read the best passages, answer with citations: for facts in any amount of text."""

from __future__ import annotations

import asyncio

from longspan.corpus import Corpus
from longspan.llm import LLM
from longspan.registry import register
from longspan.retrieval import Index
from longspan.trace import span
from longspan.workflows.answer import Answer, Settings
from longspan.workflows.extract import REFUSE_BELOW, Ranked, extract, rank
from longspan.workflows.generate import generate
from longspan.workflows.question import parts

CANDIDATES = 32  # passages that search hands to the re-ranking


def reader_of(llm: LLM, settings: Settings) -> tuple[str, str]:
    """The reader to use and why."""
    if settings.reader != "auto":
        return settings.reader, "as asked"
    if llm.reader == "extract":
        return "extract", f"{llm.name} is too small to be trusted with writing"
    return "generate", f"{llm.name} is taken to be able to write from passages"


@register("workflow", "retrieve")
async def retrieve(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> Answer:
    """Hybrid search (BM25 and vectors), units ranked by words, encoder and model; the best are read."""
    with span("index", "retrieval"):
        index = await asyncio.to_thread(
            Index.open,
            corpus,
            llm.count_batch,
            tokenizer=llm.tokenizer_name,
            encoder=settings.encoder,
            progress=settings.on_progress,
        )
    reader, why = reader_of(llm, settings)
    note = f"Reader {reader}: {why}."
    asked = parts(question) if reader == "extract" else [question]  # who writes can put parts together
    ranked = [await ranking(part, index, llm, settings, with_model=reader == "extract") for part in asked]
    if reader == "extract":
        if not all(one.read for one in ranked):
            note += " The quotes were ranked without the model, which cannot score them or had no budget left."
        text, refused, citations = extract(ranked, settings)
        missing = [part for part, one in zip(asked, ranked, strict=True) if one.stated < REFUSE_BELOW]
        if missing and not refused:
            note += f" The text does not say: {' '.join(missing)}"
        return Answer(question, text, refused, citations, "retrieve", llm.name, note)
    text, refused, citations, remark = await generate(question, ranked[0].passages(), corpus, llm, settings)
    return Answer(question, text, refused, citations, "retrieve", llm.name, f"{note} {remark}".strip())


async def ranking(question: str, index: Index, llm: LLM, settings: Settings, *, with_model: bool) -> Ranked:
    """Search, and the quotes of what was found in the order of how well they answer."""
    with span("search", "retrieval", question) as step:
        hits = await asyncio.to_thread(index.search, question, CANDIDATES)
        step.output = [f"{hit.passage.document}:{hit.passage.start}" for hit in hits]
    with span("rank", "retrieval") as step:
        ranked = await rank(question, hits, index, llm, settings, with_model=with_model)
        step.output = [
            {"quote": quote.text, "line": quote.document.line_of(quote.start), "score": round(score, 3)}
            for quote, score in zip(ranked.quotes[:8], ranked.scores[:8], strict=True)
        ]
    return ranked
