"""A cache of its own for every test, stand-ins for tokenizer and encoder, and a program that uses an index.

Run as a program this file opens the index of a folder and prints what it finds: for tests of several processes, and of
processes that are killed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longspan.corpus import Corpus
from longspan.retrieval import Encoder, Index, Vectors
from longspan.retrieval import index as module


class Words:
    """Counts words for tokens, and how often it was asked."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: list[str]) -> list[int]:
        self.texts += texts
        return [len(re.findall(r"\w+|[^\w\s]", text)) for text in texts]


class Random:
    """An encoder without weights: the sum of a random vector for each word. Keeps what it was asked for."""

    name, dimensions = "random", 384

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Vectors:
        self.texts += texts
        rows = [self.one(text) for text in texts]
        return np.array(rows, dtype=np.float32).reshape(-1, self.dimensions)

    def one(self, text: str) -> Any:
        words = ["", *re.findall(r"\w+", text.lower())]
        seeds = [zlib.crc32(word.encode("utf-8", "replace")) for word in words]
        vector = sum(np.random.default_rng(seed).normal(size=self.dimensions) for seed in seeds)
        return vector / np.linalg.norm(vector)


Open = Callable[..., Index]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LONGSPAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
def random() -> Random:
    return Random()


@pytest.fixture
def opened(words: Words, random: Random) -> Open:
    """Opens the index of a folder, a corpus or texts by name."""

    def of(source: Any, **settings: Any) -> Index:
        if isinstance(source, dict):
            source = Corpus.from_texts(source)
        elif not isinstance(source, Corpus):
            source = Corpus.open([source])
        settings = {"tokenizer": "words", "encoder": random, "budget": 40} | settings
        return Index.open(source, words, **settings)

    return of


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded encoder's folder, unpacked once for all tests."""
    home = tmp_path_factory.mktemp("encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGSPAN_CACHE", str(home))
        Encoder().load()
    return home / "models" / "all-MiniLM-L6-v2"


@pytest.fixture(scope="session")
def encoder(unpacked: Path) -> Encoder:
    return Encoder(unpacked)


@pytest.fixture
def process() -> Callable[..., subprocess.Popen[str]]:
    """Starts this file as a program; see `main`."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


def main(folder: str, query: str, fatal: str = "") -> None:
    """Print the hits of `query` as JSON; die, as by kill -9, when the progress `fatal` ("what number") is told."""

    def progress(what: str, done: int, total: int) -> None:
        if f"{what} {done}" == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    module.FLUSH_CHARACTERS = 2000
    module.EMBEDDED_TOGETHER = 16
    index = Index.open(
        Corpus.open([folder]),
        Words(),
        tokenizer="words",
        encoder=Random(),  # type: ignore[arg-type]
        budget=40,
        progress=progress,
    )
    hits = index.search(query, 5)
    print(json.dumps([[hit.passage.document, hit.passage.start, hit.score, hit.cosine] for hit in hits]))


if __name__ == "__main__":
    main(*sys.argv[1:])
