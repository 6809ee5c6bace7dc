"""Bets against a bounded mean: tests and bounds that hold at every look.

A gambler bets that values x in [0, 1] have a mean below m. The capital, the product of 1 + b (m - x) with 0 <= b <= 1/(1 - m), is a
supermartingale as long as every conditional mean is at least m, so it ever reaches 1/alpha with probability alpha at most, however often
one looks (Ville 1939; Waudby-Smith & Ramdas 2024, arXiv:2010.09686). Each bet is played by several gamblers: of every size of bet, and
beginning at every look, with starting capitals that sum to 1, since nobody knows how large a drop is and when it comes (Shin, Ramdas &
Rinaldo 2024, arXiv:2203.03532).

Shapes: D nulls, B sizes of bets, ... any number of sequences that are played at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

BETS = np.geomspace(0.004, 0.8, 12)  # shares of the largest bet
PATIENT = 20  # looks in which most of the capital begins to play
NORMAL = 0.84  # 80 % quantile of the normal distribution
LEAST = 1e-9  # mean


class Capital(NamedTuple):
    """The log capital of the gamblers that have begun, and the looks so far.

    Attributes:
        logs: (..., D, B), summed over the looks at which they began; -inf before the first.
        looks: How many times values were added.
    """

    logs: Floats
    looks: int


def no_capital(nulls: int, shape: tuple[int, ...] = ()) -> Capital:
    """Before the first look, against so many nulls."""
    return Capital(np.full((*shape, nulls, len(BETS)), -np.inf), 0)


def gains(values: ArrayLike, nulls: ArrayLike) -> Floats:
    """Growth of the log capital by values, (D, B).

    Args:
        values: (n,) in [0, 1], at least; their mean is low where something is wrong.
        nulls: (D,) means in (0, 1) that are bet against.
    """
    x, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    bets, m = _bets(nulls)
    steps = np.log1p(bets[..., None] * (m[..., None] - x))
    return steps @ counts.astype(np.float64)


def add_look(capital: Capital, grown: Floats) -> Capital:
    """The capital after one more look, at which new gamblers begin."""
    look = capital.looks + 1
    begun = np.logaddexp(capital.logs, np.log(PATIENT / ((look + PATIENT - 1) * (look + PATIENT))))
    return Capital(begun + grown, look)


def log_evidence(capital: Capital) -> Floats:
    """Log of the whole capital against each null, (..., D): gamblers who have not begun keep theirs."""
    waiting = np.log(PATIENT / (capital.looks + PATIENT))
    played = np.logaddexp.reduce(capital.logs, axis=-1) - np.log(len(BETS))
    return np.logaddexp(played, waiting)


def mean_bound(values: ArrayLike, alpha: float, *, lower: bool) -> float:
    """A bound of the mean of a fixed sample, which holds with probability 1 - alpha.

    Values that are all 0 or 1: Clopper & Pearson (1934), exact. Others in [0, 1]: the means that no bet rejects, by bisection; for values
    of little spread much closer than bounds for any spread.

    Args:
        values: (N,), at least one.
        alpha: Probability of error.
        lower: The lower bound; else the upper one.
    """
    x = np.asarray(values, dtype=np.float64)
    if not lower:
        return 1.0 - mean_bound(1.0 - x, alpha, lower=True)
    if np.isin(x, (0.0, 1.0)).all():
        return proportion_bound(int(x.sum()), len(x), alpha, lower=True)
    low, high = 0.0, float(x.mean())
    for _ in range(40):
        middle = (low + high) / 2
        # Against means of at most `middle`: the bet of the mirrored values.
        grown = np.logaddexp.reduce(gains(1.0 - x, [1.0 - middle]), axis=-1) - np.log(len(BETS))
        low, high = (middle, high) if grown[0] >= np.log(1 / alpha) else (low, middle)
    return low


def proportion_bound(good: int, rows: int, alpha: float, *, lower: bool) -> float:
    """Clopper & Pearson's bound (1934) of a proportion of which `good` of `rows` were seen; holds with probability 1 - alpha."""
    from scipy import stats

    if lower:
        return 0.0 if good == 0 else float(stats.beta.ppf(alpha, good, rows - good + 1))
    return 1.0 if good == rows else float(stats.beta.ppf(1 - alpha, good + 1, rows - good))


def rows_to_decide(mean: float, null: float, alpha: float, looks: int = 1) -> int | None:
    """About how many rows of this mean the bets need against a null; None: none suffice, as the mean is not below it.

    The best bet grows by the Kullback-Leibler divergence of two coins at each row, and it is coins that grow slowest of all values in
    [0, 1]. The number is that which decides with probability 0.8, where the sum is normal.

    Args:
        mean: Of the values.
        null: Mean that is bet against.
        alpha: Probability of error.
        looks: Look at which the drop begins.
    """
    if not 0 <= mean < null or null <= 0:
        return None
    if null >= 1:
        return 1
    grown = (mean * np.log(mean / null) if mean else 0.0) + (1 - mean) * np.log((1 - mean) / (1 - null))
    odds = np.log(max(mean, LEAST) / (1 - mean)) - np.log(null / (1 - null))
    spread = NORMAL * abs(odds) * np.sqrt(mean * (1 - mean))
    begun = np.log((looks + PATIENT - 1) * (looks + PATIENT) / PATIENT)
    target = np.log(1 / alpha) + begun + np.log(len(BETS))
    return int(np.ceil(((spread + np.sqrt(spread**2 + 4 * grown * target)) / (2 * grown)) ** 2))


def _bets(nulls: ArrayLike) -> tuple[Floats, Floats]:
    """Bets (..., D, B) and nulls (..., D, 1)."""
    m = np.clip(np.asarray(nulls, dtype=np.float64), 1e-9, 1 - 1e-9)[..., None]
    return BETS / (1 - m), m
