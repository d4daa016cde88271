"""Read everything at once: for texts that fit the model's effective window."""

from __future__ import annotations

from longspan.corpus import Corpus
from longspan.llm import LLM
from longspan.registry import register
from longspan.trace import span
from longspan.workflows.answer import Answer, Settings
from longspan.workflows.generate import generate
from longspan.workflows.passages import everything

PART_TOKENS = 512  # a part has a number that the model can cite


@register("workflow", "direct")
async def direct(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> Answer:
    """Put the whole text into one prompt.

    Raises LongspanError when the text does not fit: nothing is cut off.
    """
    with span("read everything", "corpus") as step:
        parts = list(everything(corpus, llm.count_batch, PART_TOKENS))
        step.output = {"passages": len(parts), "tokens": sum(part.tokens for part in parts)}
    text, refused, citations, note = await generate(question, parts, corpus, llm, settings, whole=True)
    return Answer(question, text, refused, citations, "direct", llm.name, note)
