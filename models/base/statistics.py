"""Paired differences over seeds: interval and verdict at one look.

A difference is the first arm's gain over the second with one seed: positive where the first is better, whatever the score's direction.
Verdicts taken again after more seeds: models/base/looks.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Outcome = Literal["first better", "second better", "equivalent", "undecided"]
Method = Literal["t", "sign-flip", "bootstrap-t"]

FEW = 20  # values below which `t` takes them as normal; from there on it resamples
RESAMPLES = 9999
ALL_FLIPS = 13  # values up to which all sign flips are taken; beyond, RESAMPLES of them are drawn


class Interval(NamedTuple):
    """A mean over seeds and its confidence interval, in the score's unit; an end that the seeds do not bound is infinite."""

    mean: float
    low: float
    high: float
    sd: float  # of one pair
    pairs: int
    method: Method


class SeedEvidence(NamedTuple):
    """Values of one look, as evidence about their mean.

    Attributes:
        mean: Of the values.
        sd: Of one value, raised to the spread of rounding.
        size: Number of values.
        points: Ascending reference points of a resampling method: a mean above m has the one-sided p-value `(1 + points <= m) /
            (1 + points)`; None: Student's t.
    """

    mean: float
    sd: float
    size: int
    points: NDArray[np.float64] | None

    @property
    def method(self) -> Method:
        """Student's t or the bootstrap, which `t` takes of many values; a sign-flip knows its own name."""
        return "t" if self.points is None else "bootstrap-t"

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.sd / math.sqrt(self.size)

    def limits(self, tail: float) -> tuple[float, float]:
        """Ends of the interval that leaves out `tail` on each side."""
        if self.points is None:
            from scipy.special import stdtrit

            half = -float(stdtrit(self.size - 1, tail)) * self.error
            return self.mean - half, self.mean + half
        place = int(tail * (len(self.points) + 1) + 1e-9)
        return (float(self.points[place - 1]), float(self.points[-place])) if place else (-math.inf, math.inf)

    def above(self, mean: float) -> float:
        """Evidence that the true mean is above a number: the normal quantile of the one-sided p-value, large where it is."""
        return self._evidence(mean, 1)

    def below(self, mean: float) -> float:
        """Evidence that the true mean is below a number."""
        return self._evidence(mean, -1)

    def _evidence(self, mean: float, sign: int) -> float:
        from scipy.special import ndtri, stdtr

        if self.points is None:
            t = sign * (self.mean - mean) / self.error if self.error else math.copysign(math.inf, sign * (self.mean - mean))
            return math.copysign(-float(ndtri(max(stdtr(self.size - 1, -abs(t)), 1e-300))), t)
        count = np.searchsorted(self.points, mean, "right") if sign > 0 else len(self.points) - np.searchsorted(self.points, mean, "left")
        return -float(ndtri(min((1 + count) / (1 + len(self.points)), 1 - 1e-15)))


def evidence_of(values: Sequence[float], resolution: float = 0.0, method: Method = "t") -> SeedEvidence:
    """The evidence of values about their mean; arguments and errors as those of `interval`."""
    scores = np.asarray(values, dtype=np.float64)
    if len(scores) < 2 or not np.isfinite(scores).all():
        raise ValueError(f"an interval over seeds needs two finite values at least, got {list(values)}")
    n, mean, raw = len(scores), float(scores.mean()), float(scores.std(ddof=1))
    sd = max(raw, resolution / math.sqrt(6))
    if method == "sign-flip":
        return SeedEvidence(mean, sd, n, _means_of_subsets(scores))
    if raw < sd or raw == 0 or (method == "t" and n < FEW):
        return SeedEvidence(mean, sd, n, None)
    drawn = np.random.default_rng(0).choice(scores, (RESAMPLES, n))
    spread = drawn.std(axis=1, ddof=1)
    varied = spread > 1e-9 * raw
    return SeedEvidence(mean, sd, n, np.sort(mean - raw * (drawn.mean(axis=1) - mean)[varied] / spread[varied]))


def _means_of_subsets(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ascending means of all non-empty subsets, or of drawn ones: below such a mean, flipped signs enlarge the sum (Hartigan 1969)."""
    n = len(scores)
    if n <= ALL_FLIPS:
        chosen = (np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1
    else:
        drawn = np.random.default_rng(0).integers(0, 2, (RESAMPLES, n))
        chosen = drawn[drawn.any(axis=1)]
    return np.sort(chosen @ scores / chosen.sum(axis=1))


def interval(values: Sequence[float], confidence: float = 0.95, resolution: float = 0.0, method: Method = "t") -> Interval:
    """The mean of paired differences, or of one arm's scores, and its two-sided confidence interval, at one look.

    - `t`: Student's t (1908), exact for normal values; from 20 values on `bootstrap-t`.
    - `sign-flip`: the means that no flip of signs about them rejects (Fisher 1935; Hartigan 1969), exact for values that are symmetric
      about their mean, whatever their distribution. An end is infinite where `2 ** -n` exceeds half the error, as with 5 values and 95 %.
    - `bootstrap-t`: the studentised bootstrap (Efron 1981; Hall 1988), right in the limit of many values; it assumes neither.

    Args:
        values: (n,), one for each seed.
        confidence: Probability with which such intervals hold the true mean.
        resolution: Step of the score, 1/examples for an accuracy. Two scores that agree to the last example need not be equal: a spread
            below that of rounding, `resolution / sqrt(6)` for a difference of two, is raised to that, and Student's t is taken.
        method: How.

    Raises:
        ValueError: Fewer than two values, or one that is not finite.
    """
    sample = evidence_of(values, resolution, method)
    low, high = sample.limits((1 - confidence) / 2)
    return Interval(sample.mean, low, high, sample.sd, sample.size, method if method == "sign-flip" else sample.method)


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
