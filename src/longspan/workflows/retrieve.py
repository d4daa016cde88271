"""Search, re-rank, read the best passages, answer with citations: for facts in any amount of text."""

from __future__ import annotations

import asyncio

from longspan.corpus import Corpus
from longspan.llm import LLM
from longspan.registry import register
from longspan.retrieval import Index
from longspan.trace import span
from longspan.workflows.answer import Answer, Settings
from longspan.workflows.extract import extract, rank
from longspan.workflows.generate import generate

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
    with span("index", "retrieval") as step:
        index = await asyncio.to_thread(
            Index.open,
            corpus,
            llm.count_batch,
            tokenizer=llm.tokenizer_name,
            encoder=settings.encoder,
            progress=settings.on_progress,
        )
    with span("search", "retrieval", question) as step:
        hits = await asyncio.to_thread(index.search, question, CANDIDATES)
        step.output = [f"{hit.passage.document}:{hit.passage.start}" for hit in hits]
    reader, why = reader_of(llm, settings)
    note = f"Reader {reader}: {why}."
    with span("rank", "retrieval") as step:
        ranked = await rank(question, hits, index, llm, settings, with_model=reader == "extract")
        step.output = [
            {"quote": quote.text, "line": quote.document.line_of(quote.start), "score": round(score, 3)}
            for quote, score in zip(ranked.quotes[:8], ranked.scores[:8], strict=True)
        ]
    if reader == "extract":
        if not ranked.read:
            note += " The quotes were ranked without the model, which cannot score them or had no budget left."
        text, refused, citations = await extract(question, ranked, corpus, llm, settings)
        return Answer(question, text, refused, citations, "retrieve", llm.name, note)
    text, refused, citations, remark = await generate(question, ranked.passages(), corpus, llm, settings)
    return Answer(question, text, refused, citations, "retrieve", llm.name, f"{note} {remark}".strip())
