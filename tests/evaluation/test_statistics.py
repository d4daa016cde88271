"""Intervals hold what they promise."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from longspan.evaluation.statistics import mean_of_scores, over_seeds, paired_bootstrap, wilson


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_is_scipys(successes: int, trials: int) -> None:
    successes = min(successes, trials)
    found = wilson(successes, trials)
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.low <= found.mean <= found.high


def test_wilson_covers_fractions_too() -> None:
    """Scores like shares of items found: at least 95 % of the intervals have the true mean."""
    chance = random.Random(0)
    inside = 0
    for _ in range(400):
        found = mean_of_scores([chance.randint(0, 4) / 4 for _ in range(30)])
        inside += found.low <= 0.5 <= found.high
    assert inside >= 380


def test_nothing_measured_has_no_interval() -> None:
    assert math.isnan(wilson(0, 0).mean)
    assert paired_bootstrap([], []).n == 0
    assert math.isnan(over_seeds([]).mean)
    alone = over_seeds([0.5])
    assert alone.mean == 0.5 and math.isnan(alone.low)


def test_over_seeds_is_students() -> None:
    values = [0.1, 0.3, 0.2, 0.5]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = over_seeds(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_paired_bootstrap_agrees_with_scipys() -> None:
    chance = np.random.default_rng(1)
    a = chance.integers(0, 2, 200).astype(float)
    b = np.clip(a + chance.choice([0, 0, 0, 1, -1], 200), 0, 1)
    found = paired_bootstrap(a.tolist(), b.tolist())
    expected = stats.bootstrap((b - a,), np.mean, method="percentile", n_resamples=4000, rng=2).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=40))
def test_a_difference_turned_round_is_its_negative(pairs: list[tuple[float, float]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    there, back = paired_bootstrap(a, b, resamples=400), paired_bootstrap(b, a, resamples=400)
    assert there.mean == pytest.approx(-back.mean)
    assert there.low - 1e-9 <= there.high
    same = paired_bootstrap(a, a, resamples=50)
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_more_samples_narrow_the_interval() -> None:
    widths = [wilson(n // 2, n).high - wilson(n // 2, n).low for n in (10, 40, 160)]
    assert all(a > b for a, b in pairwise(widths))
