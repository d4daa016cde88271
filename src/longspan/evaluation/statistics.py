"""Intervals: how far a measured mean can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean of `n` values with its 95 % (or other) interval; all NaN where there were no values."""

    mean: float
    low: float
    high: float
    n: int


def wilson(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share.

    Also for means of scores between 0 and 1: their variance is at most that of right and wrong with the same mean, so
    the interval is then too wide rather than too narrow. It stays within 0 to 1 and has width where all are equal.
    """
    if trials == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    z = normal_quantile(0.5 + confidence / 2)
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(max(share * (1 - share), 0.0) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low, high = (centre - half) / scale, (centre + half) / scale
    return Interval(share, max(0.0, min(low, share)), min(1.0, max(high, share)), int(trials))


def mean_of_scores(scores: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of scores (0 to 1) with Wilson's interval."""
    return wilson(sum(scores), len(scores), confidence)


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of `b - a` over the same samples, its interval, and the two-sided p of no difference."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], *, confidence: float = 0.95, resamples: int = 4000, seed: int = 0
) -> Difference:
    """Resample the samples (not the scores of each spec apart): what makes a sample hard cancels out.

    Percentile interval of the mean difference; p is twice the smaller share of resampled means on either side of 0.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} scores cannot be paired")
    difference = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    n = len(difference)
    if n == 0:
        return Difference(math.nan, math.nan, math.nan, math.nan, 0)
    chance = np.random.default_rng(seed)
    # Scores take few values: drawing how often each comes up is drawing the samples, and needs no n x resamples table.
    values, counts = np.unique(difference, return_counts=True)
    if len(values) <= 256:
        means = chance.multinomial(n, counts / n, size=resamples) @ values / n
    else:
        means = np.array([chance.choice(difference, n).mean() for _ in range(resamples)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    below, above = float((means <= 0).mean()), float((means >= 0).mean())
    return Difference(float(difference.mean()), float(low), float(high), min(1.0, 2 * min(below, above)), n)


def over_seeds(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean over seeds with Student's t interval; a single seed has no interval (low and high are NaN)."""
    n = len(values)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    array: Array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    from scipy.stats import t

    half = float(t.ppf(0.5 + confidence / 2, n - 1)) * float(array.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)
