"""Samples over a Ray cluster: every worker is a process with the model loaded, and calls go to one that is free."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from longspan.errors import LongspanError, UsageError
from longspan.llm import Completion, Message, Sampling, open_local

RETRIES = 2  # of a call whose worker died, on a fresh worker


class Workers:
    """`workers` is `ray` (as many as the cluster's cores allow, two cores each), `ray:N`, or `ray:N:ADDRESS`."""

    def __init__(self, spec: str, workers: str) -> None:
        try:
            import ray
        except ImportError:
            raise LongspanError("Workers on a cluster need Ray: pip install 'longspan[ray]'.") from None
        kind, _, rest = workers.partition(":")
        number, _, address = rest.partition(":")
        if kind != "ray" or (number and not number.isdigit()) or number == "0":
            raise UsageError(f"{workers!r} names no workers: write ray, ray:N, or ray:N:ADDRESS.")
        if not ray.is_initialized():
            ray.init(address=address or None, log_to_driver=False, include_dashboard=False, configure_logging=False)
        cores = ray.cluster_resources().get("CPU", 1.0)
        self.spec = spec
        self.count = int(number) if number else max(1, int(cores // 2))
        self._share = min(2.0, cores / self.count)
        self._ray = ray
        self._free: asyncio.Queue[Any] | None = None

    def _actor(self) -> Any:
        return self._ray.remote(num_cpus=self._share)(Worker).remote(self.spec, max(1, int(self._share)))

    async def chat(
        self, messages: Sequence[Message], *, max_tokens: int, sampling: Sampling, stop: Sequence[str]
    ) -> Completion:
        """Answer on the next free worker; a worker that died is replaced and the call made again."""
        if self._free is None:
            self._free = asyncio.Queue()
            for _ in range(self.count):
                self._free.put_nowait(self._actor())
        for attempt in range(RETRIES + 1):
            worker = await self._free.get()
            try:
                completion: Completion = await worker.chat.remote(list(messages), max_tokens, sampling, tuple(stop))
                return completion
            except self._ray.exceptions.RayActorError as error:
                worker = self._actor()
                if attempt == RETRIES:
                    raise LongspanError(f"A worker died {RETRIES + 1} times over the same call: {error}.") from error
            finally:
                self._free.put_nowait(worker)
        raise AssertionError("unreachable")


class Worker:
    """One process with the model."""

    def __init__(self, spec: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.llm = open_local(spec, beyond_window=True)

    async def chat(
        self, messages: list[Message], max_tokens: int, sampling: Sampling, stop: tuple[str, ...]
    ) -> Completion:
        return await self.llm.chat(messages, max_tokens=max_tokens, sampling=sampling, stop=stop)
