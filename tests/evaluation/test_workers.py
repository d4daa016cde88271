"""Calls over a Ray cluster of this machine: answered as without one, also when a worker dies."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import ray

from longspan.errors import UsageError
from longspan.evaluation.workers import Workers
from longspan.llm import LocalLLM, Message, Sampling

MESSAGES: list[Message] = [{"role": "user", "content": "abc"}]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    yield
    ray.shutdown()


def test_a_worker_answers_as_the_model_does_and_is_replaced_when_it_dies(tiny_folder: str) -> None:
    workers = Workers(tiny_folder, "ray:1")
    assert workers.count == 1

    async def both() -> list[str]:
        first = await workers.chat(MESSAGES, max_tokens=8, sampling=Sampling(), stop=())
        assert workers._free is not None
        worker = workers._free.get_nowait()
        ray.kill(worker)
        workers._free.put_nowait(worker)
        second = await workers.chat(MESSAGES, max_tokens=8, sampling=Sampling(), stop=())
        return [first.text, second.text]

    alone = asyncio.run(LocalLLM(tiny_folder).chat(MESSAGES, max_tokens=8))
    assert asyncio.run(both()) == [alone.text, alone.text]


@pytest.mark.parametrize("wrong", ["dask", "ray:x", "ray:0", "4"])
def test_what_names_no_workers(wrong: str) -> None:
    with pytest.raises(UsageError, match="names no workers"):
        Workers("smollm2", wrong)
