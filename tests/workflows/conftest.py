"""A scripted model and a hashing encoder: the workflows without weights."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longspan.llm import Call, Completion, Message, Sampling, SimulatedLLM
from longspan.llm.protocol import note, scoring_key
from longspan.llm.simulated import Curve, Profile
from longspan.trace import Usage, span
from longspan.workflows import Settings

Reply = Callable[[str], str]


class Scripted:
    """An LLM whose answer is a function of the prompt; a token is a word. Every prompt is kept in `prompts`."""

    def __init__(self, reply: Reply | str = "", *, window: int = 4096, reader: str = "generate") -> None:
        self.reply: Reply = reply if callable(reply) else lambda prompt: reply
        self.name = self.tokenizer_name = "scripted"
        self.window = self.effective_window = window
        self.reader = reader
        self.prompts: list[str] = []

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def count_batch(self, texts: list[str]) -> list[int]:
        return [self.count_tokens(text) for text in texts]

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        sampling: Sampling = Sampling(),  # noqa: B008
        stop: Sequence[str] = (),
        schema: dict[str, Any] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        with Call.of(messages, max_tokens, sampling, stop, schema).recorded("scripted") as step:
            prompt = messages[-1]["content"]
            self.prompts.append(prompt)
            read = sum(self.count_tokens(message["content"]) for message in messages)
            assert read + max_tokens <= self.window, "the prompt does not fit"
            words = re.findall(r"\S+\s*", self.reply(prompt))
            text = "".join(words[:max_tokens])
            for word in words[:max_tokens]:
                if on_text:
                    on_text(word)
            reason = "length" if len(words) > max_tokens else "stop"
            completion = Completion(text, Usage(1, read, min(len(words), max_tokens)), reason)
            note(step, completion)
        return completion


class ScriptedScorer(Scripted):
    """Also scores: a question's word is likelier where the context has it."""

    def __init__(self, *, window: int = 4096) -> None:
        super().__init__("", window=window, reader="extract")

    async def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, ...]]:
        with span("score scripted", "llm") as step:
            step.attributes = {"key": scoring_key("scripted", pairs)}
            step.output = [list(scored) for scored in self._scores(pairs)]
        return self._scores(pairs)

    @staticmethod
    def _scores(pairs: Sequence[tuple[str, str]]) -> list[tuple[float, ...]]:
        return [
            tuple(-1.0 if word.lower().strip("?.,") in context.lower() else -4.0 for word in continuation.split())
            for context, continuation in pairs
        ]


def words(texts: list[str]) -> list[int]:
    return [len(re.findall(r"\w+|[^\w\s]", text)) for text in texts]


def simulated(window: int = 4096, curve: Curve | None = None, seed: int = 0) -> SimulatedLLM:
    """A simulated reader that counts words."""
    profile = Profile(window, window, curve or Curve(((0, 1.0),)))
    return SimulatedLLM("of words", profile=profile, count_batch=words, seed=seed)


def hay(count: int, seed: int = 0) -> list[str]:
    chosen = random.Random(seed)
    nouns, verbs = ["mill", "barn", "river", "town", "ox"], ["turns", "waits", "sleeps", "grows", "falls"]
    return [f"The {chosen.choice(nouns)} {chosen.choice(verbs)} on day {chosen.randrange(9)}." for _ in range(count)]


def with_needles(count: int, needles: list[str], seed: int = 0) -> str:
    text, chosen = hay(count, seed), random.Random(seed + 1)
    for needle in needles:
        text.insert(chosen.randrange(len(text) + 1), needle)
    return "\n\n".join(" ".join(text[at : at + 6]) for at in range(0, len(text), 6))


class HashingEncoder:
    """Texts to unit vectors of 384 dimensions by hashing their words."""

    def __init__(self) -> None:
        self.calls = 0

    def load(self) -> None:
        pass

    def __call__(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Any:
        self.calls += 1
        out = np.zeros((len(texts), 384), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                out[row, zlib.crc32(word.encode("utf-8", "replace")) % 384] += 1
            out[row, 0] += 0.01
        return out / np.linalg.norm(out, axis=1, keepdims=True)

    def pieces(self, texts: Sequence[str]) -> list[Any]:
        """A vector a word. In their contexts, other words are near as well: their cosine is a half."""
        found = [self(re.findall(r"\w+", text)) for text in texts]
        return [np.concatenate([rows, np.ones((len(rows), 1))], axis=1) / np.sqrt(2) for rows in found]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LONGSPAN_CACHE", str(folder))
    return folder


@pytest.fixture
def settings() -> Settings:
    return Settings(encoder=HashingEncoder())  # type: ignore[arg-type]


MANUAL = """\
1. Introduction

The frobnicator turns grain into flour. It was built in 1987 by Ada Miller.

2. Operation

Press the green button to start. The motor needs 12 seconds to reach its speed.
Never open the lid while the motor runs.

The following materials may be milled:

- wheat, at most 20 kg a run
- rye, at most 15 kg a run
- spelt, at most 18 kg a run

3. Care

Clean the sieve after every 50 runs. Grease is needed once a year, in March.

4. Warranty

The warranty lasts 36 months from the day of purchase. Damage by stones is excluded.
"""


@pytest.fixture
def manual() -> str:
    return MANUAL
