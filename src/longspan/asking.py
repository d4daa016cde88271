"""`longspan.ask`: the whole way from sources and a question to an answer, in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from longspan.corpus import Corpus
from longspan.errors import UsageError
from longspan.llm import LLM, open_llm
from longspan.workflows import Answer, Settings, run


@dataclass(frozen=True, slots=True)
class Spec:
    """What answers: `[WORKFLOW@]MODEL`, the same spelling everywhere. `workflow` is None where none is named:
    then `ask` chooses one, and an evaluation gives the model the whole text."""

    workflow: str | None
    model: str

    @classmethod
    def parse(cls, text: str) -> Spec:
        workflow, at, model = text.rpartition("@")
        if not model or (at and not workflow):
            raise UsageError(f"{text!r} does not name what answers: write MODEL or WORKFLOW@MODEL, as in auto@smollm2.")
        return cls(workflow or None, model)


def ask(
    sources: str | Path | Sequence[str | Path] | Mapping[str, str] | Corpus,
    question: str,
    *,
    model: str | LLM = "smollm2",
    workflow: str | None = None,
    base_url: str | None = None,
    window: int | None = None,
    settings: Settings | None = None,
    stdin: BinaryIO | None = None,
    on_text: Callable[[str], None] | None = None,
) -> Answer:
    """Answer `question` from `sources`: files, folders, globs, URLs, "-" for stdin, or a mapping of names to texts.

    `model` is a spec, `[WORKFLOW@]MODEL`: `smollm2`, a hub id, a folder, a .gguf file, `openai:NAME` (with `base_url`
    for a server of your own, and its `window` in tokens if it does not tell); or anything that follows the LLM
    protocol. `workflow` overrides the spec's.

    >>> answer = longspan.ask("manual.txt", "Which port does the server listen on?")   # doctest: +SKIP
    >>> answer.text, answer.citations[0].line_start                                      # doctest: +SKIP

    Raises LongspanError with one sentence for whatever the caller can mend.
    """
    settings = settings or Settings()
    if on_text is not None:
        settings.on_text = on_text
    if isinstance(model, str):
        spec = Spec.parse(model)
        llm, workflow = open_llm(spec.model, base_url=base_url, window=window, asking=True), workflow or spec.workflow
    else:
        llm = model
    if isinstance(sources, Corpus):
        corpus = sources
    elif isinstance(sources, Mapping):
        corpus = Corpus.from_texts(dict(sources))
    else:
        corpus = Corpus.open([sources] if isinstance(sources, str | Path) else list(sources), stdin=stdin)
    return asyncio.run(run(question, corpus, llm, workflow or "auto", settings))
