"""A scaling curve through measured pilots, with intervals of what it foretells.

`loss(C) = floor + scale (C + offset)^-exponent` of the operations C of a whole schedule, as scaling laws have it (Hoffmann et al. 2022,
arXiv:2203.15556; of distillation Busbridge et al. 2025, arXiv:2502.08606); the offset stands for the plateau of the shortest trainings.
Pilots are few and far from the training that is asked about, so that one best fit, and a bootstrap of its residuals, would claim far too
much: with three points they leave nothing over. All floors, exponents and offsets of a grid are kept instead, each weighted by how well
it fits (Student's t where scale and noise are integrated out), and forecasts are drawn from them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.9  # of intervals
FLOORS = np.linspace(0.0, 0.98, 25)  # as shares of the least loss
EXPONENTS = np.geomspace(0.03, 2.0, 25)
OFFSETS = np.array([0.0, 0.5, 1.0, 2.0, 4.0])  # as multiples of the fewest operations
PRIOR_WEIGHT = 2.0  # observations that the expected noise counts for
NOISE = 0.005  # of a loss, at the least, from one seed to another
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
            noise: Standard deviation of a loss that is expected; at the least a share of it.
            seed: Of the draws.
        """
        self._operations = np.array([point.flops for point in points], dtype=np.float64)
        losses = np.array([point.loss for point in points], dtype=np.float64)
        floors, exponents, offsets = (
            grid.ravel() for grid in np.meshgrid(FLOORS * losses.min(), EXPONENTS, OFFSETS * self._operations.min(), indexing="ij")
        )
        self._last = self._operations.max()
        x = ((self._operations[None] + offsets[:, None]) / (self._last + offsets[:, None])) ** -exponents[:, None]  # (curves, points)
        squares = (x**2).sum(axis=1)
        scales = (x * (losses[None] - floors[:, None])).sum(axis=1) / squares
        rest = ((losses[None] - floors[:, None] - scales[:, None] * x) ** 2).sum(axis=1)
        freedom = len(points) - 1 + PRIOR_WEIGHT
        spread = PRIOR_WEIGHT * max(noise, NOISE * float(np.median(losses))) ** 2 + rest
        weight = -0.5 * np.log(squares) - 0.5 * freedom * np.log(spread)
        weights = np.where(scales > 0, np.exp(weight - weight.max()), 0.0)
        generator = np.random.default_rng(seed)
        chosen = generator.choice(len(weights), DRAWS, p=weights / weights.sum())
        self._floors, self._exponents, self._offsets = floors[chosen], exponents[chosen], offsets[chosen]
        deviation = np.sqrt(spread[chosen] / generator.chisquare(freedom, DRAWS))
        # A student is no worse for more steps, in these laws: a scale below nothing is none.
        self._scales = np.maximum(scales[chosen] + deviation * generator.standard_normal(DRAWS) / np.sqrt(squares[chosen]), 0.0)
        self._noise = deviation * generator.standard_normal(DRAWS)

    def draws(self, flops: float, noise: bool = True) -> NDArray[np.float64]:
        """(DRAWS,) losses after so many operations, not below 0; with the noise of a seed or without."""
        shares = ((flops + self._offsets) / (self._last + self._offsets)) ** -self._exponents
        return np.maximum(self._floors + self._scales * shares + (self._noise if noise else 0.0), 0.0)

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
