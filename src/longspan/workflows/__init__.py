"""How a text is read: one file a workflow, each `await workflow(question, corpus, llm, settings) -> Answer`."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import asdict
from typing import Any

from longspan.corpus import Corpus
from longspan.errors import LongspanError, UsageError
from longspan.llm import LLM, Scorer
from longspan.registry import find
from longspan.trace import Span, span
from longspan.workflows import (  # noqa: F401 - they register themselves
    agenticlu,
    auto,
    coding_agent,
    direct,
    extagents,
    inftythink,
    lambda_rlm,
    laser,
    map_reduce,
    memex,
    retrieve,
    rlm,
)
from longspan.workflows.answer import Answer, Citation, Settings
from longspan.workflows.budget import Budget, Budgeted, BudgetSpent
from longspan.workflows.journal import Journal, Journalled
from longspan.workflows.replay import Replayed

__all__ = ["Answer", "Budget", "BudgetSpent", "Citation", "Settings", "replay", "run"]

GRACE = 5.0  # seconds after the deadline in which a workflow may put together what it has


async def run(
    question: str, corpus: Corpus, llm: LLM, workflow: str = "auto", settings: Settings | None = None
) -> Answer:
    """Answer `question` from `corpus` with `llm` by the named workflow; usage and trace are filled in.

    Finished calls are kept until the run is complete: the same run again goes on after them. Raises LongspanError for
    an empty question, one that does not fit the window, a spent budget, or a model that fails.
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
    budgeted = Budgeted(llm, Budget.of(settings.budget))
    journal = Journal(question, workflow, llm.name, texts_of(corpus))
    with span("ask", "run", {"question": question, "workflow": workflow, "model": llm.name}) as root:
        root.attributes = _facts(question, corpus, llm, workflow, settings)
        answer = await _within(budgeted, method(question, corpus, Journalled(budgeted, journal), settings))
        root.output = answer.text
    if not budgeted.refused:  # else a larger budget goes on
        journal.drop()
    return _finished(answer, root)


async def replay(root: Span, corpus: Corpus, counter: LLM, settings: Settings | None = None) -> Answer:
    """The recorded run again, without a call to any model: the same workflow over the same texts gives the same answer.

    `counter` is a model with the tokenizer of the run's. Of `settings` only the callbacks and the encoder count; the
    rest is the run's. Raises LongspanError where texts or trace are not those of the run.
    """
    facts = root.attributes
    llm = Replayed(root, counter)
    if texts_of(corpus) != facts["texts"]:
        raise LongspanError("The sources are not what they were when the run was made: a replay needs the same texts.")
    settings = settings or Settings()
    settings.reader, settings.max_tokens = facts["settings"]["reader"], facts["settings"]["max_tokens"]
    settings.budget = Budget(**facts["settings"]["budget"])
    with span("replay", "run", root.input) as again:
        answer: Answer = await find("workflow", facts["workflow"])(facts["question"], corpus, llm, settings)
        again.output = answer.text
    return _finished(answer, again)


def texts_of(corpus: Corpus) -> str:
    """A key of the texts of a corpus: their content and names."""
    return hashlib.sha256("\0".join(sorted(entry.id for entry in corpus.entries)).encode()).hexdigest()[:32]


async def _within(budgeted: Budgeted, work: Any) -> Answer:
    """The workflow, which has a little longer than its calls."""
    left = budgeted.seconds_left()
    try:
        async with asyncio.timeout(None if left is None else left + GRACE):
            answer: Answer = await work
    except TimeoutError:
        raise BudgetSpent(
            f"The budget of {budgeted.budget.seconds:g} s was spent before there was an answer: give a larger --budget."
        ) from None
    return answer


def _finished(answer: Answer, root: Span) -> Answer:
    answer.usage = root.total()
    answer.trace = root
    return answer


def _facts(question: str, corpus: Corpus, llm: LLM, workflow: str, settings: Settings) -> dict[str, Any]:
    """What a replay needs to know of the run."""
    stdin = {entry.id for entry in corpus.entries if entry.name == "stdin"}
    return {
        "question": question,
        "workflow": workflow,
        "model": llm.name,
        "window": llm.window,
        "effective_window": llm.effective_window,
        "reader": llm.reader,
        "tokenizer": llm.tokenizer_name,
        "scores": isinstance(llm, Scorer),
        "tools": getattr(llm, "tools", False),
        "sources": ["-" if source in stdin else source for source in corpus.sources],
        "texts": texts_of(corpus),
        "settings": {
            "reader": settings.reader,
            "max_tokens": settings.max_tokens,
            "budget": asdict(Budget.of(settings.budget)),
        },
    }
