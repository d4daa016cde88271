"""The kernels' tests run on one level of instructions after another; two threads are enough to meet each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from longspan import kernels


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[*kernels.levels(), "torch"])
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every level that this machine runs, and the plain torch path."""
    with kernels.using(request.param):
        yield request.param
