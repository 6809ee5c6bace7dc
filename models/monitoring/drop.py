"""A drop since promotion: how large it is at least, at every look.

A metric's values are brought to x in [0, 1] of which more is better, and a relative drop d of the metric becomes a mean of x. The
reference has finitely many rows, so its own bound enters: it is read once, and a share of the permitted error pays for it.

Shapes: D drops of `DROPS`, B sizes of bets.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.monitoring.betting import (
    Capital,
    Floats,
    add_look,
    gains,
    log_evidence,
    mean_bound,
    rows_to_decide,
)

# Relative drops that are bet against; one of a setting is rounded up to the next.
DROPS = np.array([0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8])
FOR_REFERENCE = 0.8  # share of the permitted error: a sequence gathers evidence for ever, its reference does not
Kind = Literal["share", "loss", "difference"]


class Yardstick(NamedTuple):
    """Reference that a sequence of windows is measured against.

    Attributes:
        kind: `share`: values in [0, 1], more is better, the drop is relative to their mean. `loss`: values in [0, 1], less is better, the
            drop is the relative rise of their mean. `difference`: paired differences in [-1, 1] of two models on the same rows, more is
            better; the drop is that of their mean.
        mean: Mean of the reference.
        bound: The bound of the reference's mean from the side that favours the model: below it for `share` and `difference`, above it
            for `loss`.
        sd: Of one value of the reference.
        rows: Rows of the reference.
        alpha: Permitted error of the sequence, without the reference's part.
        scale: Values are divided by it, and cut at 1: a loss without a bound, such as bits per byte, is given one.
    """

    kind: Kind
    mean: float
    bound: float
    sd: float
    rows: int
    alpha: float
    scale: float = 1.0

    @property
    def nulls(self) -> Floats:
        """The mean of x at each drop, (D,)."""
        if self.kind == "share":
            return (1 - DROPS) * self.bound
        if self.kind == "loss":
            return 1 - np.minimum((1 + DROPS) * self.bound, 1.0)
        return (np.maximum(self.bound - DROPS, -1.0) + 1) / 2

    def scaled(self, values: ArrayLike) -> Floats:
        """Values as they are compared: at most 1."""
        return np.minimum(np.asarray(values, dtype=np.float64) / self.scale, 1.0)

    def drop_of(self, mean: float) -> float:
        """Drop of a mean of scaled values against that of the reference."""
        if self.kind == "difference":
            return self.mean - mean
        ratio = mean / max(self.mean, 1e-12)
        return 1 - ratio if self.kind == "share" else ratio - 1

    def interval(self, mean: float, sd: float, rows: int, z: float = 1.96) -> tuple[float, float]:
        """The 95 % interval of the drop by one window of so many scaled values alone, by the normal distribution."""
        floor = 0.5 / rows if self.kind != "difference" else 1.0 / rows  # of the spread of values that all are equal
        own, theirs = max(sd, floor) ** 2 / rows, max(self.sd, 0.5 / self.rows) ** 2 / self.rows
        base = 1.0 if self.kind == "difference" else max(self.mean, 1e-12)
        ratio = 1.0 if self.kind == "difference" else mean / base
        half = z * float(np.sqrt(own + ratio**2 * theirs)) / base
        return self.drop_of(mean) - half, self.drop_of(mean) + half


def yardstick(values: ArrayLike, alpha: float, kind: Kind = "share", scale: float = 1.0) -> Yardstick:
    """The yardstick of a reference's values (N,) with a permitted error in all."""
    x = np.minimum(np.asarray(values, dtype=np.float64) / scale, 1.0)
    share = FOR_REFERENCE * alpha
    if kind == "loss":
        bound = mean_bound(x, share, lower=False)
    elif kind == "difference":
        bound = 2 * mean_bound((x + 1) / 2, share, lower=True) - 1
    else:
        bound = mean_bound(x, share, lower=True)
    return Yardstick(kind, float(x.mean()), bound, float(x.std()), len(x), alpha - share, scale)


def look_at(capital: Capital, measure: Yardstick, values: ArrayLike) -> Capital:
    """The capital after one more window of values (n,); one without values is no look."""
    x = measure.scaled(values)
    if not len(x):
        return capital
    x = x if measure.kind == "share" else 1 - x if measure.kind == "loss" else (x + 1) / 2
    return add_look(capital, gains(x, measure.nulls))


def bound_of(capital: Capital, measure: Yardstick) -> NDArray[np.float64]:
    """The largest drop that is proven, (...): 0 where none is. Ever wrong with probability alpha at most."""
    proven = log_evidence(capital) >= np.log(1 / measure.alpha)
    proven = np.logical_and.accumulate(proven, axis=-1)
    count = proven.sum(axis=-1)
    return np.where(count > 0, DROPS[np.maximum(count - 1, 0)], 0.0)


def is_proven(capital: Capital, measure: Yardstick, drop: float) -> NDArray[np.bool_]:
    """Whether a drop of more than `drop`, at most that of the grid above it, is proven, (...)."""
    place = int(np.searchsorted(DROPS, drop - 1e-12))
    if place == len(DROPS):
        return np.zeros(capital.logs.shape[:-2], dtype=bool)
    return log_evidence(capital)[..., place] >= np.log(1 / measure.alpha)


def needed_rows(measure: Yardstick, mean: float, drop: float, looks: int) -> int | None:
    """About how many rows prove a drop beyond `drop`, where their values have this mean; None: none do, as the reference has too few.

    Args:
        measure: The yardstick.
        mean: Of the scaled values.
        drop: That is to be exceeded.
        looks: Look at which the drop begins.
    """
    place = min(int(np.searchsorted(DROPS, drop - 1e-12)), len(DROPS) - 1)
    x = mean if measure.kind == "share" else 1 - mean if measure.kind == "loss" else (mean + 1) / 2
    return rows_to_decide(x, float(measure.nulls[place]), measure.alpha, looks)
