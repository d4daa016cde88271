"""The search for the effective context, on scores whose true course is known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.errors import UsageError
from longspan.evaluation.effective import Probe, SequentialTest, effective_context, lengths_between


def model(breaks_at: int, seed: int, good: float = 0.97, bad: float = 0.3):
    """A model that is right with probability `good` up to a length, and `bad` beyond it."""

    def scores_at(length: int, number: int) -> Sequence[float]:
        rng = random.Random(f"{seed}-{length}-{number}")
        return [float(rng.random() < (good if length <= breaks_at else bad)) for _ in range(4)]

    return scores_at


@given(st.integers(512, 30_000), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_break_is_between_the_last_that_passed_and_the_first_that_failed(breaks_at: int, seed: int) -> None:
    found = effective_context(model(breaks_at, seed, good=1.0, bad=0.0), shortest=256, longest=32_768)
    assert found.length <= breaks_at
    assert found.fails_at is None or found.fails_at > breaks_at
    assert found.certain


def test_at_95_percent_the_search_errs_rarely() -> None:
    wrong = 0
    for seed in range(200):
        found = effective_context(model(4000, seed), shortest=512, longest=16_384, most=200)
        wrong += not (found.length <= 4000 and (found.fails_at or 0) > 4000)
    assert wrong <= 10  # 5 % of 200


def test_under_the_null_a_sequential_test_rejects_no_more_than_alpha() -> None:
    rejected = 0
    for seed in range(400):
        rng, test = random.Random(seed), SequentialTest(0.8, 0.05)
        for _ in range(150):
            test.add(float(rng.random() < 0.8))
            if test.decision != "undecided":
                rejected += 1
                break
    assert rejected <= 0.13 * 400  # two one-sided tests of 5 % each, and the noise of 400 tries


def test_few_samples_decide_clear_cases() -> None:
    above, below = SequentialTest(0.85, 0.01), SequentialTest(0.85, 0.01)
    for _ in range(48):
        above.add(1.0)
    for _ in range(6):
        below.add(0.0)
    assert (above.decision, below.decision) == ("above", "below")


def test_relative_threshold_is_a_share_of_the_shortest_length() -> None:
    found = effective_context(model(2000, 1, good=0.6, bad=0.0), shortest=512, longest=8192, threshold=None, most=400)
    assert found.threshold == pytest.approx(0.85 * 0.6, abs=0.06)
    assert found.length <= 2000 < (found.fails_at or 0)


def test_what_never_fails_and_what_always_does() -> None:
    best = effective_context(model(10**9, 2, good=1.0), shortest=512, longest=8192)
    assert (best.length, best.fails_at) == (8192, None)
    worst = effective_context(model(0, 2, bad=0.0), shortest=512, longest=8192)
    assert (worst.length, worst.fails_at) == (0, 512)
    assert effective_context(model(0, 2, bad=0.0), shortest=512, longest=8192, threshold=None).length == 0


def test_an_undecided_length_is_said_not_to_be_certain() -> None:
    probes: list[Probe] = []
    found = effective_context(
        lambda length, number: [0.85, 0.87] if length > 512 else [1.0, 1.0],
        shortest=512,
        longest=1024,
        most=30,
        tell=probes.append,
    )
    assert probes == list(found.probes)
    assert not found.certain


@given(st.integers(64, 5000), st.integers(0, 200_000))
def test_lengths_ascend_between_their_ends(shortest: int, more: int) -> None:
    grid = lengths_between(shortest, shortest + more)
    assert grid[0] == shortest and grid[-1] == shortest + more
    assert all(a < b for a, b in pairwise(grid))


def test_thresholds_and_lengths_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="no length between"):
        effective_context(model(1, 1), shortest=1024, longest=512)
    with pytest.raises(UsageError, match="decides nothing"):
        effective_context(model(1, 1), shortest=512, longest=1024, threshold=1.0)
