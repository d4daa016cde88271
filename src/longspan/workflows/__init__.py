"""How a text is read: one file a workflow, each `await workflow(question, corpus, llm, settings) -> Answer`."""

from __future__ import annotations

from longspan.corpus import Corpus
from longspan.errors import LongspanError, UsageError
from longspan.llm import LLM
from longspan.registry import find
from longspan.trace import span
from longspan.workflows import auto, direct, map_reduce, retrieve  # noqa: F401 - they register themselves
from longspan.workflows.answer import Answer, Citation, Settings
from longspan.workflows.budget import Budgeted, BudgetSpent

__all__ = ["Answer", "BudgetSpent", "Citation", "Settings", "run"]


async def run(
    question: str, corpus: Corpus, llm: LLM, workflow: str = "auto", settings: Settings | None = None
) -> Answer:
    """Answer `question` from `corpus` with `llm` by the named workflow; usage and trace are filled in.

    Raises LongspanError for an empty question, one that does not fit the window, a spent budget, or a model that fails.
    """
    settings = settings or Settings()
    question = question.strip()
    if not question:
        raise UsageError("The question is empty: say what you want to know.")
    method = find("workflow", workflow)
    length = llm.count_tokens(question)
    if length > llm.effective_window // 2:
        raise LongspanError(
            f"The question has {length} tokens, more than half of what {llm.name} reads well "
            f"({llm.effective_window}): put the long part into a file and ask a short question about it."
        )
    asked = Budgeted(llm, settings.budget) if settings.budget is not None else llm
    with span("ask", "run", {"question": question, "workflow": workflow, "model": llm.name}) as root:
        answer: Answer = await method(question, corpus, asked, settings)
        root.output = answer.text
    answer.usage = root.total()
    answer.trace = root
    return answer
