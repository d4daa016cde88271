"""Choose the workflow that suits the question, the text and the model, and say why."""

from __future__ import annotations

from longspan.corpus import Corpus
from longspan.llm import LLM
from longspan.registry import find, register
from longspan.trace import span
from longspan.workflows.answer import Answer, Settings
from longspan.workflows.budget import Budget
from longspan.workflows.generate import reading_budget
from longspan.workflows.question import kind_of
from longspan.workflows.retrieve import reader_of

CHARACTERS_PER_TOKEN = 3.0  # a low estimate, so that a text that may not fit is never taken to fit


def choose(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> tuple[str, str]:
    """The workflow's name and the reason in one clause; nothing but sizes is read."""
    reader, _ = reader_of(llm, settings)
    kind = kind_of(question)
    tokens = int(corpus.size / CHARACTERS_PER_TOKEN)
    if reader == "generate" and tokens <= reading_budget(question, llm, settings):
        return "direct", f"the text, about {tokens} tokens, fits the model's effective window of {llm.effective_window}"
    if kind != "fact":
        most = Budget.of(settings.budget).tokens
        if most is not None and reader == "generate" and tokens * 1.2 > most:
            return "retrieve", f"a {kind} takes the whole text, but that would cost more than the budget"
        return "map-reduce", f"a {kind} takes the whole text"
    return "retrieve", "a fact is found by search"


@register("workflow", "auto")
async def auto(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> Answer:
    """Take direct, retrieve or map-reduce by the question's kind, the text's size and the model's window."""
    name, why = choose(question, corpus, llm, settings)
    with span(f"auto: {name}", "workflow", why):
        answer: Answer = await find("workflow", name)(question, corpus, llm, settings)
    answer.note = f"Workflow {name}: {why}. {answer.note}".strip()
    return answer
