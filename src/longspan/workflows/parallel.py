"""Many steps at once, but not too many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

CONCURRENT = 8  # steps under way at once, as many as an endpoint is asked at once


async def parallel(step: Callable[[T], Awaitable[R]], items: Sequence[T], limit: int = CONCURRENT) -> list[R]:
    """`step` of every item, at most `limit` at once; results in the order of the items.

    The first failure, or a cancellation, ends the steps under way, and no further one begins.
    """
    results: dict[int, R] = {}
    todo = iter(enumerate(items))

    async def work() -> None:
        for at, item in todo:  # each worker takes the next that nobody has
            results[at] = await step(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(limit, len(items))):
                group.create_task(work())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None  # the first ended the others
    return [results[at] for at in range(len(items))]
