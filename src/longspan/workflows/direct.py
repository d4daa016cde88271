"""Read everything at once: for texts that fit the model's effective window."""

from __future__ import annotations

from longspan.corpus import Corpus
from longspan.errors import LongspanError
from longspan.llm import LLM
from longspan.registry import register
from longspan.trace import span
from longspan.workflows.answer import Answer, Settings
from longspan.workflows.generate import generate, reading_budget
from longspan.workflows.passages import everything


@register("workflow", "direct")
async def direct(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> Answer:
    """Put the whole text into one prompt.

    Raises LongspanError when the text does not fit: nothing is cut off.
    """
    budget = reading_budget(question, llm, settings)
    with span("read everything", "corpus") as step:
        parts = list(everything(corpus, llm.count_batch, budget))
        tokens = sum(part.tokens for part in parts)
        step.output = {"passages": len(parts), "tokens": tokens}
    if tokens > budget:
        raise LongspanError(
            f"The text has {tokens} tokens and {llm.name} has room for {budget}: use --workflow retrieve or map-reduce."
        )
    text, refused, citations, note = await generate(question, parts, corpus, llm, settings)
    return Answer(question, text, refused, citations, "direct", llm.name, note)
