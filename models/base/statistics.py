"""Paired differences over seeds: interval, verdict, seeds still needed.

A difference is the first arm's gain over the second with one seed: positive where the first is better, whatever the score's direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Outcome = Literal["first better", "second better", "equivalent", "undecided"]
Method = Literal["t", "bootstrap"]

FEW = 20  # pairs below which the differences are taken as normal (t); from there on they are resampled
RESAMPLES = 9999
POWER = 0.8  # probability with which the advised number of seeds decides
MOST = 1000  # no larger number of seeds is advised


class Interval(NamedTuple):
    """A mean over seeds and its confidence interval, in the score's unit."""

    mean: float
    low: float
    high: float
    sd: float  # of one pair
    pairs: int
    method: Method


def interval(values: Sequence[float], confidence: float = 0.95, resolution: float = 0.0) -> Interval:
    """The mean of paired differences, or of one arm's scores, and its two-sided confidence interval.

    Fewer than 20 values: Student's t (1908). From 20 on the studentised bootstrap (Efron 1981; Hall 1988), which assumes no
    normal distribution and, unlike percentiles, keeps its confidence with 20 values.

    Args:
        values: (n,), one for each seed.
        confidence: Probability with which such intervals hold the true mean.
        resolution: Step of the score, 1/examples for an accuracy. Two scores that agree to the last example need not be equal: a spread
            below that of rounding, `resolution / sqrt(6)` for a difference of two, is raised to that.

    Raises:
        ValueError: Fewer than two values, or one that is not finite.
    """
    scores = np.asarray(values, dtype=np.float64)
    if len(scores) < 2 or not np.isfinite(scores).all():
        raise ValueError(f"an interval over seeds needs two finite values at least, got {list(values)}")
    n, mean, raw = len(scores), float(scores.mean()), float(scores.std(ddof=1))
    sd = max(raw, resolution / math.sqrt(6))
    if n < FEW or raw < sd:
        from scipy import stats

        low, high = stats.t.ppf([(1 - confidence) / 2, (1 + confidence) / 2], n - 1)
        return Interval(mean, mean + low * sd / math.sqrt(n), mean + high * sd / math.sqrt(n), sd, n, "t")
    drawn = np.random.default_rng(0).choice(scores, (RESAMPLES, n))
    spread = drawn.std(axis=1, ddof=1)
    pivots = (drawn.mean(axis=1) - mean)[spread > 0] / (spread[spread > 0] / math.sqrt(n))
    low, high = np.quantile(pivots, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean, mean - float(high) * sd / math.sqrt(n), mean - float(low) * sd / math.sqrt(n), sd, n, "bootstrap")


def outcome(difference: Interval, delta: float) -> Outcome:
    """One verdict of four.

    Equivalent: the whole interval lies within +-delta (two one-sided tests, Schuirmann 1987). Better: the interval excludes zero, and
    the difference is delta at least. All else is undecided, so that with more and more seeds a true difference below delta ends as
    equivalent and one above it as better.

    Args:
        difference: Interval of the differences.
        delta: Smallest difference of interest, above 0.
    """
    if -delta < difference.low and difference.high < delta:
        return "equivalent"
    if difference.low > 0 and difference.mean >= delta:
        return "first better"
    return "second better" if difference.high < 0 and difference.mean <= -delta else "undecided"


def seeds_to_decide(difference: Interval, delta: float, confidence: float = 0.95) -> int | None:
    """Seeds with which the verdict would be decided with probability 0.8, if mean and spread stay as they are.

    Normal differences are assumed: the least n with `(t(confidence) + t(0.8)) sd / sqrt(n) <= target`, where the target is the mean's
    distance from zero where it is delta at least, and else its distance from delta.

    Args:
        difference: Interval of the differences.
        delta: Smallest difference of interest.
        confidence: Of the interval.

    Returns:
        Seeds in all, not more; None: more than 1,000.
    """
    from scipy import stats

    size = abs(difference.mean)
    target = size if size >= delta else delta - size
    n = np.arange(2, MOST + 1)
    needed = (stats.t.ppf((1 + confidence) / 2, n - 1) + stats.t.ppf(POWER, n - 1)) * difference.sd / np.sqrt(n)
    enough = n[needed <= target]
    return int(enough[0]) if len(enough) else None
