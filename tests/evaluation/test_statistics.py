"""Intervals and tests against their mathematics: coverage by simulation, symmetry, and what is degenerate."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp

from longspan.evaluation.statistics import (
    Estimate,
    holm,
    mean_interval,
    mean_of,
    over_seeds,
    paired_bootstrap,
    perplexity_change,
    perplexity_interval,
    wilson,
)

scores = st.lists(st.floats(0, 1), min_size=1, max_size=40)
judged = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60)


@given(st.integers(0, 200), st.integers(1, 200))
def test_wilson_is_scipys(successes: int, trials: int) -> None:
    successes = min(successes, trials)
    wanted = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson(successes, trials) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


@given(st.floats(0, 50), st.floats(50, 500))
def test_wilson_holds_the_share_and_mirrors(successes: float, trials: float) -> None:
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert wilson(trials - successes, trials) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_wilson_of_nothing_and_of_extremes() -> None:
    assert wilson(0, 0) == (0, 1)
    low, high = wilson(0, 3)
    assert low == 0 and high == pytest.approx(0.5615, abs=1e-4)
    assert wilson(3, 3) == pytest.approx((1 - high, 1))


@given(judged)
def test_right_or_wrong_scores_get_wilsons_interval(values: list[float]) -> None:
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx(wilson(sum(values), len(values)), abs=1e-9)


@given(scores)
def test_mean_interval_holds_the_mean_and_mirrors(values: list[float]) -> None:
    found = mean_interval(values)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    mirrored = mean_interval([1 - value for value in values])
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-6)
    wide = wilson(sum(values), len(values))
    assert wide[0] <= found.low + 1e-9 and found.high <= wide[1] + 1e-9


@pytest.mark.parametrize(
    "draw",
    [
        lambda random, n: (random.random(n) < 0.9) * 1.0,
        lambda random, n: random.binomial(4, 0.8, n) / 4,
        lambda random, n: random.beta(8, 2, n),
        lambda random, n: np.where(random.random(n) < 0.7, 1.0, random.beta(2, 2, n)),
    ],
)
@pytest.mark.parametrize("n", [3, 10, 60])
def test_mean_interval_covers(draw, n: int) -> None:
    random = np.random.default_rng(1)
    truth = float(draw(random, 400_000).mean())
    held = [found.low <= truth <= found.high for found in (mean_interval(list(draw(random, n))) for _ in range(1000))]
    assert np.mean(held) > 0.91


def test_scores_out_of_range_are_refused_and_none_says_nothing() -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        mean_interval([0.5, 1.5])
    nothing = mean_interval([])
    assert math.isnan(nothing.value) and (nothing.low, nothing.high, nothing.n) == (0, 1, 0)


@given(st.lists(judged, min_size=1, max_size=6))
def test_mean_of_estimates_is_narrower_than_the_widest(tasks: list[list[float]]) -> None:
    estimates = [mean_interval(task) for task in tasks]
    found = mean_of(estimates)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.value == pytest.approx(np.mean([one.value for one in estimates]))
    assert found.high - found.low <= max(one.high - one.low for one in estimates) + 1e-9
    assert mean_of([estimates[0]]) == estimates[0]
    assert found.n == sum(map(len, tasks))
    four = mean_of([Estimate(0.5, 0.4, 0.6, 10)] * 4)
    assert (four.value, four.low, four.high, four.n) == pytest.approx((0.5, 0.45, 0.55, 40))


@settings(deadline=None, max_examples=40)
@given(scores)
def test_a_spec_does_not_differ_from_itself(values: list[float]) -> None:
    ids = {str(at): value for at, value in enumerate(values)}
    found = paired_bootstrap(ids, dict(reversed(ids.items())), resamples=500)
    assert (found.value, found.p, found.n) == (0, 1, len(values))
    assert found.low < 0 < found.high


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_difference_mirrors_and_holds_its_value(pairs: list[tuple[float, float]]) -> None:
    a = {str(at): left for at, (left, _) in enumerate(pairs)}
    b = {str(at): right for at, (_, right) in enumerate(pairs)}
    found, mirrored = paired_bootstrap(a, b, resamples=2000), paired_bootstrap(b, a, resamples=2000)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert 0 < found.p <= 1
    assert mirrored.value == pytest.approx(-found.value)
    assert mirrored.low == pytest.approx(-found.high, abs=0.15)
    assert mirrored.p == pytest.approx(found.p, abs=0.08)


def test_pairs_are_by_id_and_only_shared_ones_count() -> None:
    a = {"x": 1.0, "y": 0.0, "only a": 1.0}
    b = {"y": 0.0, "x": 0.0, "only b": 1.0}
    found = paired_bootstrap(a, b)
    assert (found.value, found.n) == (0.5, 2)
    nothing = paired_bootstrap({"x": 1.0}, {"y": 1.0})
    assert math.isnan(nothing.value) and (nothing.low, nothing.high, nothing.p, nothing.n) == (-1, 1, 1, 0)


def test_few_pairs_never_look_certain() -> None:
    """Five pairs that all say the same: p is 2/2^5, and the interval does not shrink to a point."""
    found = paired_bootstrap({str(n): 1.0 for n in range(5)}, {str(n): 0.0 for n in range(5)})
    assert found.p == pytest.approx(2 / 2**5, abs=0.01)
    assert (found.value, found.high) == (1, 1) and 0 < found.low < 0.5
    one = paired_bootstrap({"x": 1.0}, {"x": 0.0})
    assert one.p == 1 and one.low < 0


def test_p_is_the_exact_tests() -> None:
    """For right or wrong, turning signs is McNemar's exact test: a binomial over the pairs that differ."""
    a = {str(n): float(n < 40) for n in range(60)}
    b = {str(n): float(20 <= n < 50) for n in range(60)}
    wanted = binomtest(20, 30).pvalue
    assert paired_bootstrap(a, b).p == pytest.approx(wanted, abs=0.01)


def test_p_may_be_smaller_than_one_draw_in_ten_thousand_but_not_than_the_truth() -> None:
    found = paired_bootstrap({str(n): 1.0 for n in range(100)}, {str(n): float(n >= 80) for n in range(100)})
    assert 2 / 2**80 < found.p < 1e-8


def test_the_interval_is_the_normal_ones_for_many_samples() -> None:
    random = np.random.default_rng(0)
    left, right = random.random(3000), random.random(3000)
    a = {str(at): float(value) for at, value in enumerate(left)}
    b = {str(at): float(value) for at, value in enumerate(right)}
    wanted = ttest_1samp(left - right, 0).confidence_interval()
    found = paired_bootstrap(a, b)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.002)
    assert found.p == pytest.approx(ttest_1samp(left - right, 0).pvalue, abs=0.02)


@pytest.mark.parametrize("n", [5, 20])
def test_difference_covers(n: int) -> None:
    """Pairs of which 30 % are right by a alone and 10 % by b alone."""
    random = np.random.default_rng(2)
    held = []
    for _ in range(300):
        draw = random.random(n)
        a = {str(at): float(value < 0.3) for at, value in enumerate(draw)}
        b = {str(at): float(0.3 <= value < 0.4) for at, value in enumerate(draw)}
        found = paired_bootstrap(a, b, resamples=500)
        held.append(found.low <= 0.2 <= found.high)
    assert np.mean(held) > 0.91


def test_weights_make_tasks_count_alike() -> None:
    """Two tasks: 8 samples where a is better, 2 where b is: by weight they cancel out."""
    a = {str(n): float(n < 8) for n in range(10)}
    b = {str(n): float(n >= 8) for n in range(10)}
    assert paired_bootstrap(a, b).value == pytest.approx(0.6)
    found = paired_bootstrap(a, b, weights={str(n): 1 / 8 if n < 8 else 1 / 2 for n in range(10)})
    assert found.value == pytest.approx(0) and found.low < 0 < found.high


def test_figures_repeat_and_ten_thousand_samples_are_quick() -> None:
    random = np.random.default_rng(0)
    a = {str(at): float(value) for at, value in enumerate(random.random(10_000))}
    b = {str(at): float(value) for at, value in enumerate(random.random(10_000))}
    begin = time.perf_counter()
    found = paired_bootstrap(a, b)
    assert time.perf_counter() - begin < 5
    small = dict(list(a.items())[:50])
    assert paired_bootstrap(small, b) == paired_bootstrap(dict(reversed(small.items())), b)
    assert found.n == 10_000


def test_holm_is_hand_worked() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1, 1]


def test_over_seeds_is_students_interval() -> None:
    values = [3.1, 2.9, 3.4, 3.0]
    wanted = ttest_1samp(values, 0).confidence_interval()
    found = over_seeds(values)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.value == pytest.approx(3.1)
    assert over_seeds([2.0]) == Estimate(2.0, -math.inf, math.inf, 1)
    assert over_seeds([2.0, 2.0]) == Estimate(2.0, 2.0, 2.0, 2)
    assert math.isnan(over_seeds([]).value)


def test_a_perplexity_is_the_geometric_mean_with_students_interval_of_logs() -> None:
    perplexities = [7.0, 9.0, 8.0, 12.0]
    found = perplexity_interval([1 / one for one in perplexities])
    assert 1 / found.value == pytest.approx(math.prod(perplexities) ** 0.25)
    wanted = ttest_1samp([math.log(one) for one in perplexities], 0).confidence_interval()
    assert (1 / found.high, 1 / found.low) == pytest.approx((math.exp(wanted.low), math.exp(wanted.high)))
    assert (found.n, found.perplexity) == (4, True)
    alone = perplexity_interval([0.5])
    assert (alone.value, alone.low, alone.high) == (pytest.approx(0.5), 0.0, 1.0)  # one text says nothing of the spread
    assert 0 <= perplexity_interval([0.0, 0.5]).low <= 1


def test_perplexities_are_told_apart_by_their_ratio() -> None:
    """Half a percent on every text is half a percent, however far the texts are from each other."""
    rng = np.random.default_rng(0)
    nats, noise = rng.normal(2.5, 1, 30), rng.normal(0, 0.002, 30)
    before = {str(at): math.exp(-x) for at, x in enumerate(nats)}
    after = {str(at): math.exp(-x - 0.005 - more) for at, (x, more) in enumerate(zip(nats, noise, strict=True))}
    found = perplexity_change(after, before)
    assert found.perplexity and found.n == 30 and found.p < 0.001
    assert 0.004 < found.low < found.value < found.high < 0.007
    mirrored = perplexity_change(before, after)
    assert (1 + mirrored.value) * (1 + found.value) == pytest.approx(1)
    wide = perplexity_change({"a": 0.1}, {"a": 0.2})
    assert (wide.value, wide.low, wide.n) == (pytest.approx(1.0), -1.0, 1) and wide.high > 1e6
    assert math.isnan(perplexity_change({"x": 1.0}, {"y": 1.0}).value)
