"""The limits of sampling do what their names say."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longspan.engine import Sampling
from longspan.engine.sampler import Sampler, limited

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -8.0])


def kept(**limits: float) -> list[int]:
    return limited(LOGITS, Sampling(temperature=1.0, **limits)).nonzero()[:, 0].tolist()  # type: ignore[arg-type]


def test_limits() -> None:
    assert kept() == [0, 1, 2, 3, 4]
    assert kept(top_k=2) == [0, 1]
    assert kept(top_k=99) == [0, 1, 2, 3, 4]
    assert kept(top_p=0.5) == [0]
    assert kept(top_p=0.7) == [0, 1]
    assert kept(top_p=0.0) == [0]
    assert kept(min_p=0.2) == [0, 1]
    assert kept(min_p=1.0) == [0]


def test_temperature_sharpens_and_flattens() -> None:
    cold, hot = (limited(LOGITS, Sampling(temperature=t)) for t in (0.5, 2.0))
    assert cold[0] > LOGITS.softmax(0)[0] > hot[0]


@given(
    scores=st.lists(st.floats(-30, 30), min_size=1, max_size=20),
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 25),
    top_p=st.floats(0, 1),
    min_p=st.floats(0, 1),
    seed=st.integers(0, 2**40),
)
def test_a_token_is_always_found(
    scores: list[float], temperature: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    sampling = Sampling(temperature, top_p, top_k, min_p, seed)
    logits = torch.tensor(scores)
    token, logprob = Sampler(sampling, logits.device).choose(logits)
    assert logprob == pytest.approx(float(logits.log_softmax(0)[token]), abs=1e-4)
    assert token == Sampler(sampling, logits.device).choose(logits)[0]


def test_what_is_not_allowed_is_not_chosen() -> None:
    allowed = torch.tensor([False, False, True, True, False])
    for sampling in (Sampling(), Sampling(temperature=3.0, top_p=0.1, seed=0)):
        token, logprob = Sampler(sampling, LOGITS.device).choose(LOGITS, allowed)
        assert token == 2
        assert math.isclose(logprob, float(LOGITS.log_softmax(0)[2]), abs_tol=1e-5)
