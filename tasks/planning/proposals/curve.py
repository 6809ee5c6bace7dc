"""A scaling curve through measured pilots, with intervals of what it foretells.

`loss(C) = floor + scale / (1 + (C / onset)^exponent)` of the operations C of a whole schedule: far beyond the onset the power law of
scaling laws (Hoffmann et al. 2022, arXiv:2203.15556; of distillation Busbridge et al. 2025, arXiv:2502.08606), before it the plateau of the
shortest trainings. From one seed to another a loss scatters in proportion to itself.

Pilots are few and far from the training that is asked about, so that one best fit, and a bootstrap of its residuals, would claim far too
much: with so few points hardly any residuals are left. All floors, exponents and onsets of a grid are kept instead, each weighted by how
well it fits (Student's t where scale and noise are integrated out), and forecasts are drawn from them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.9  # of intervals
FLOORS = np.concatenate((np.geomspace(0.01, 0.3, 8), np.linspace(0.0, 0.98, 18)))  # as shares of the least loss
EXPONENTS = np.geomspace(0.05, 4.0, 20)
ONSETS = np.geomspace(1e-3, 8.0, 18)  # as multiples of the most operations
PRIOR_WEIGHT = 2.0  # observations that the expected noise counts for
NOISE = 0.005  # of a loss, at the least, from one seed to another
LEAST = 1e-4  # loss, in place of none
DRAWS = 4000


class Point(NamedTuple):
    """A pilot: operations of its schedule, its loss at the end."""

    flops: float
    loss: float


class Forecast(NamedTuple):
    """A loss that is foretold: median, and the ends of an interval that holds it with probability `LEVEL`, the noise of a seed included."""

    median: float
    low: float
    high: float


class ScalingCurve:
    """Curves through points, by weight; every forecast is made of the same draws of them."""

    def __init__(self, points: Sequence[Point], noise: float = 0.0, seed: int = 0) -> None:
        """Fit.

        Args:
            points: Two or more.
            noise: Standard deviation of a loss that is expected, relative to it.
            seed: Of the draws.
        """
        self._operations = np.array([point.flops for point in points], dtype=np.float64)
        losses = np.maximum(np.array([point.loss for point in points], dtype=np.float64), LEAST)
        grid = np.meshgrid(FLOORS * losses.min(), EXPONENTS, ONSETS * self._operations.max(), indexing="ij")
        floors, exponents, onsets = (values.ravel() for values in grid)
        self._last = self._operations.max()
        x = _fallen(self._operations[None], onsets[:, None], exponents[:, None], self._last)  # (curves, points)
        weighted = x / losses  # as the noise is relative
        squares = (weighted**2).sum(axis=1)
        scales = (weighted * (1 - floors[:, None] / losses)).sum(axis=1) / squares
        rest = ((1 - floors[:, None] / losses - scales[:, None] * weighted) ** 2).sum(axis=1)
        freedom = len(points) - 1 + PRIOR_WEIGHT
        spread = PRIOR_WEIGHT * max(noise, NOISE) ** 2 + rest
        weight = -0.5 * np.log(squares) - 0.5 * freedom * np.log(spread)
        weights = np.where(scales > 0, np.exp(weight - weight.max()), 0.0)
        generator = np.random.default_rng(seed)
        chosen = generator.choice(len(weights), DRAWS, p=weights / weights.sum())
        self._floors, self._exponents, self._onsets = floors[chosen], exponents[chosen], onsets[chosen]
        deviation = np.sqrt(spread[chosen] / generator.chisquare(freedom, DRAWS))
        # In these laws more steps make no student worse: a scale below nothing is none.
        self._scales = np.maximum(scales[chosen] + deviation * generator.standard_normal(DRAWS) / np.sqrt(squares[chosen]), 0.0)
        self._noise = deviation * generator.standard_normal(DRAWS)

    def draws(self, flops: float, noise: bool = True) -> NDArray[np.float64]:
        """(DRAWS,) losses after so many operations, not below 0; with the noise of a seed or without."""
        shares = _fallen(flops, self._onsets, self._exponents, self._last)
        return np.maximum((self._floors + self._scales * shares) * (1 + (self._noise if noise else 0.0)), 0.0)

    def at(self, flops: float) -> Forecast:
        """The forecast after so many operations."""
        low, median, high = np.quantile(self.draws(flops), ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2))
        return Forecast(float(median), float(low), float(high))

    def reaches(self, loss: float, most: float) -> float | None:
        """Fewest operations after which the median is no larger than a loss, within a hundredth; None: more than `most`."""
        if float(np.median(self.draws(most, noise=False))) > loss:
            return None
        low, high = float(self._operations.min()), most
        while high > 1.01 * low:
            middle = (low * high) ** 0.5
            low, high = (low, middle) if float(np.median(self.draws(middle, noise=False))) <= loss else (middle, high)
        return high


def _fallen(flops: Any, onsets: NDArray[np.float64], exponents: NDArray[np.float64], last: float) -> NDArray[np.float64]:
    """Excess of losses over their floors after so many operations, as multiples of that after `last`."""
    return (1 + (last / onsets) ** exponents) / (1 + (flops / onsets) ** exponents)
