"""Shifts of a feature between a reference and a window: KS, chi-square, PSI.

Tests say whether there is a shift, PSI how large it is: with many rows the smallest shift is significant, and harmless.

Shapes: N rows of the reference, n rows of a window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Test = Literal["ks", "chi-square"]
DECILES, FEWEST = 10, 5.0  # bins of PSI; expected rows of a category, below which it is counted with the others
OTHERS = "(others)"


class Shift(NamedTuple):
    """A feature of a window against the reference.

    Attributes:
        test: The test of `p`.
        statistic: Largest distance of the distribution functions, or chi-square.
        p: Chance of such a statistic without a shift; for this feature and this look alone.
        psi: Population stability index: below 0.1 small, above 0.25 large by custom; the part that chance adds is taken off.
        rows: Of the window.
    """

    test: Test
    statistic: float
    p: float
    psi: float
    rows: int


def numbers_shift(reference: Sequence[float], window: Sequence[float]) -> Shift:
    """The shift of numbers, by the two-sample Kolmogorov-Smirnov test; PSI over deciles of the reference."""
    from scipy import stats

    a, b = np.asarray(reference, dtype=np.float64), np.asarray(window, dtype=np.float64)
    found: Any = stats.ks_2samp(a, b, method="asymp")
    edges = np.unique(np.quantile(a, np.linspace(0, 1, DECILES + 1)[1:-1]))
    counts = [np.bincount(np.searchsorted(edges, x, side="left"), minlength=len(edges) + 1) for x in (a, b)]
    return Shift("ks", float(found.statistic), float(found.pvalue), psi(*counts), len(b))


def kinds_shift(reference: Mapping[str, int], window: Mapping[str, int]) -> Shift:
    """The shift of categories with their counts, by the chi-square test of homogeneity; rare ones are counted together."""
    from scipy import stats

    total, rows = sum(reference.values()), sum(window.values())
    merged = Counter(reference) + Counter(window)
    share = rows / (rows + total)
    often = [name for name, count in sorted(merged.items()) if count * min(share, 1 - share) >= FEWEST]
    table = np.array([[counts.get(name, 0) for name in often] for counts in (reference, window)])
    rest = np.array([[total], [rows]]) - table.sum(axis=1, keepdims=True)
    table = np.hstack([table, rest]) if rest.sum() else table
    if table.shape[1] < 2:
        return Shift("chi-square", 0.0, 1.0, 0.0, rows)
    found: Any = stats.chi2_contingency(table, correction=False)
    return Shift("chi-square", float(found.statistic), float(found.pvalue), psi(table[0], table[1]), rows)


def psi(reference: np.ndarray, window: np.ndarray) -> float:
    """Population stability index of counts over the same bins, (B,) each, less its mean without a shift; at least 0.

    Without a shift it has the mean (B - 1) (1/N + 1/n), which a small window would take for a shift. Empty bins count half a row.
    """
    a, b = np.maximum(reference, 0.5), np.maximum(window, 0.5)
    p, q = a / a.sum(), b / b.sum()
    chance = (len(a) - 1) * (1 / max(reference.sum(), 1) + 1 / max(window.sum(), 1))
    return float(max(((q - p) * np.log(q / p)).sum() - chance, 0.0))


def corrected(p: Sequence[float]) -> list[float]:
    """P-values of several features of one look, corrected for their number by Holm (1979)."""
    order = np.argsort(p)
    steps = np.array(p, dtype=np.float64)[order] * np.arange(len(p), 0, -1)
    held = np.minimum(np.maximum.accumulate(steps), 1.0)
    found = np.empty(len(p))
    found[order] = held
    return found.tolist()
