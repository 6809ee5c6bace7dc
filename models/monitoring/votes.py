"""k of n windows: the level of one window's test, by simulation.

Windows that share a reference err together, so their p-values are simulated with the correlation that its finite size brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

SEQUENCES = 20_000


@lru_cache(maxsize=64)
def vote_level(k: int, n: int, looks: int, alpha: float, correlation: float = 0.0, seed: int = 0) -> float:
    """The level of each window's test with which `k` of any `n` windows in a row pass with probability `alpha` within so many looks.

    Args:
        k: Windows that must pass.
        n: Among so many in a row.
        looks: Windows of a sequence.
        alpha: Permitted error of the whole sequence.
        correlation: Of two windows' test statistics, rows of a window / (rows of a window + rows of the reference).
        seed: Of the simulation.
    """
    return float(np.quantile(_decisive(k, n, looks, correlation, seed), alpha))


def error_rate(k: int, n: int, looks: int, level: float, correlation: float = 0.0, seed: int = 1) -> float:
    """Probability that a sequence without a shift has `k` of `n` windows in a row that pass at this level, by simulation."""
    return float((_decisive(k, n, looks, correlation, seed) <= level).mean())


def passes(p: Sequence[float], k: int, n: int, level: float) -> bool:
    """Whether `k` of the last `n` windows pass, the last one included, by their p-values in order."""
    return len(p) > 0 and p[-1] <= level and sum(value <= level for value in p[-n:]) >= k


def _decisive(k: int, n: int, looks: int, correlation: float, seed: int) -> np.ndarray:
    """Of each simulated sequence the level at which it would just be an alarm, (SEQUENCES,)."""
    from scipy import stats

    rng = np.random.default_rng(seed)
    common = rng.standard_normal((SEQUENCES, 1))
    scores = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * rng.standard_normal((SEQUENCES, looks))
    p = 2 * stats.norm.sf(np.abs(scores))
    padded = np.hstack([np.ones((SEQUENCES, n - 1)), p])  # before the first look
    views = np.lib.stride_tricks.sliding_window_view(padded, n, axis=1)
    return np.partition(views, k - 1, axis=-1)[..., k - 1].min(axis=1)
