"""What a run has finished, kept so that a run that was stopped goes on without paying again."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from longspan.llm import LLM, Call, Completion, Message, Sampling, Scorer
from longspan.llm.protocol import note, scoring_key
from longspan.paths import cache_home
from longspan.trace import Usage, span


class Journal:
    """An append-only file of finished calls: one JSON line each, written whole before the next begins.

    `run` is whatever two runs must share for one to go on with the other's calls (question, workflow, sources, model).
    A line that was cut by a crash is ignored. A full disk costs the resuming, not the run.
    """

    def __init__(self, *run: Any) -> None:
        digest = hashlib.sha256(json.dumps(run, ensure_ascii=True).encode()).hexdigest()[:24]
        self.path: Path = cache_home() / "journals" / f"{digest}.jsonl"
        self._done: dict[str, Any] = {}
        with contextlib.suppress(OSError):
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    step = json.loads(line)
                    self._done[step["key"]] = step["value"]

    def get(self, key: str) -> Any:
        """The kept value, or None."""
        return self._done.get(key)

    def put(self, key: str, value: Any) -> None:
        self._done[key] = value
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "value": value}, ensure_ascii=True) + "\n")

    def drop(self) -> None:
        """Forget the run: it is complete."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


class Journalled:
    """An LLM that answers from the journal what it was asked before the run was stopped, at no cost.

    A call is known by the hash of model, messages and parameters; the second of two equal calls is another one. What is
    kept stands in the trace with no usage and `"kept": true`.
    """

    def __init__(self, llm: LLM, journal: Journal) -> None:
        self.llm = llm
        self.journal = journal
        self.name = llm.name
        self.window = llm.window
        self.effective_window = llm.effective_window
        self.reader = llm.reader
        self.tokenizer_name = llm.tokenizer_name
        self.tools: bool = getattr(llm, "tools", False)
        self.count_tokens = llm.count_tokens
        self.count_batch = llm.count_batch
        self._asked: Counter[str] = Counter()
        if isinstance(llm, Scorer):
            self.loglikelihood = self._loglikelihood

    def _number(self, key: str) -> str:
        self._asked[key] += 1
        return f"{key}/{self._asked[key]}"

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        stop: Sequence[str] = (),
        schema: dict[str, Any] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        call = Call.of(messages, max_tokens, sampling, stop, schema)
        key = self._number(call.key(self.name))
        kept = self.journal.get(key)
        if kept is not None:
            with call.recorded(self.name) as step:
                completion = Completion(kept["text"], Usage(), kept["finish_reason"])
                note(step, completion)
                step.attributes["kept"] = True
            if on_text:
                on_text(completion.text)
            return completion
        completion = await self.llm.chat(
            messages, max_tokens=max_tokens, sampling=sampling, stop=stop, schema=schema, on_text=on_text
        )
        self.journal.put(key, {"text": completion.text, "finish_reason": completion.finish_reason})
        return completion

    async def _loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, ...]]:
        assert isinstance(self.llm, Scorer)
        alike = scoring_key(self.name, pairs)
        key = self._number(alike)
        kept = self.journal.get(key)
        if kept is None:
            scores = await self.llm.loglikelihood(pairs)
            self.journal.put(key, scores)
            return scores
        with span(f"score {self.name}", "llm", {"pairs": [list(pair) for pair in pairs]}) as step:
            step.attributes = {"key": alike, "model": self.name, "kept": True}
            step.output = kept
        return [tuple(scored) for scored in kept]
