"""Bootstrap intervals of figures, with documents as the resampled unit.

Rows of one document depend on each other; an interval that took them for independent would be too narrow. So every figure here is made
of sums over documents, and a resample weighs each document by how often it was drawn (Efron and Tibshirani 1993, chapter 8). One
seed gives the same draws to every figure of an audit, so that differences of two figures are paired.

The percentiles of resamples leave too much out where documents are few: 80 to 91 % of such intervals over 10 documents hold the true value
where 95 are said. So the percentiles are expanded to those at which the interval of a normal mean is Student's (Hesterberg 2015,
doi:10.1080/00031305.2015.1089789), and below `LEAST_DOCUMENTS` there is no figure by default. Coverage then:
`python -m benchmarks.verdicts`, docs/performance.md.

Shape legend: N rows, D documents, G groups of rows, C columns, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from conf.schema.measures.audit import LEAST_DOCUMENTS

Floats = NDArray[np.float64]
Column = NDArray[np.generic] | Callable[[], NDArray[np.generic]]  # many columns are made only while they are summed
CONFIDENCE = 0.95
BLOCK_ELEMENTS = 2**22  # weights of documents drawn at once
SEED = 0


class Limits(NamedTuple):
    """Below these a figure is not given: `too few examples` is an outcome of its own."""

    rows: int = 30
    documents: int = LEAST_DOCUMENTS


class Figure(NamedTuple):
    """A figure with its 95 % interval; all None where there were too few rows or documents."""

    value: float | None
    low: float | None
    high: float | None
    rows: int  # that it rests on
    documents: int  # that these come from

    @property
    def few(self) -> bool:
        """Whether there were too few."""
        return self.value is None


class BootstrapEstimate(NamedTuple):
    """A figure and its value in each resample."""

    value: float
    draws: Floats  # (R,)
    rows: int
    documents: int
    within: tuple[float, float] | None = None  # where it can lie at all: a share of rows, or the difference of two

    def minus(self, other: BootstrapEstimate) -> BootstrapEstimate:
        """The paired difference, with the sample size of the scarcer one."""
        rows, documents = min(self.rows, other.rows), min(self.documents, other.documents)
        within = (self.within[0] - other.within[1], self.within[1] - other.within[0]) if self.within and other.within else None
        return BootstrapEstimate(self.value - other.value, self.draws - other.draws, rows, documents, within)

    def figure(self, limits: Limits) -> Figure:
        """Value and interval of expanded percentiles.

        Shares that are the same in all resamples (no error among n documents) are given the width of the rule of three, 3.7 / n at
        97.5 % (Hanley and Lippman-Hand 1983): none seen is not none there.
        """
        if self.rows < limits.rows or self.documents < limits.documents or not math.isfinite(self.value):
            return Figure(None, None, None, self.rows, self.documents)
        tail = expanded_tail(self.documents)
        low, high = np.nanquantile(self.draws, [tail, 1 - tail])
        if self.within and high - low < 1e-12:
            width = rule_of_three(self.documents)
            low, high = max(low - width, self.within[0]), min(high + width, self.within[1])
        return Figure(self.value, float(low), float(high), self.rows, self.documents)

    @property
    def error(self) -> float:
        """Standard error: the spread of the draws, which is `sqrt((D - 1) / D)` of it."""
        return float(np.nanstd(self.draws, ddof=1)) * _inflation(self.documents)

    def p_above(self, least: float) -> float:
        """One-sided p-value of `value <= least`: Student's t with the bootstrap's standard error and D - 1 degrees of freedom."""
        from scipy.stats import t

        if self.error < 1e-12:
            return 0.0 if self.value > least else 1.0
        return float(t.sf((self.value - least) / self.error, max(self.documents - 1, 1)))


def _inflation(documents: int) -> float:
    return math.sqrt(documents / (documents - 1)) if documents > 1 else 1.0


def expanded_tail(documents: int) -> float:
    """The share of draws to leave out on each side: 0.0085 with 10 documents, 0.014 with 15, 0.022 with 60, 0.025 with very many."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(_inflation(documents) * stdtrit(max(documents - 1, 1), (1 - CONFIDENCE) / 2)))


def rule_of_three(documents: int) -> float:
    """Upper 97.5 % bound of a share of which none was seen in so many documents."""
    return min(-math.log((1 - CONFIDENCE) / 2) / documents, 1.0)


class Sums(NamedTuple):
    """Sums of columns over the rows of each group: as they are, and in each resample."""

    names: dict[str, int]
    point: Floats  # (G, C)
    draws: Floats  # (R, G, C)
    units: NDArray[np.int64]  # (G, C) documents with something in the column

    def ratio(self, above: str, below: str, group: int = 0, share: bool = False) -> BootstrapEstimate:
        """Sum of one column over that of another, a count of rows; NaN where there are none."""
        a, b = self.names[above], self.names[below]
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = self.draws[:, group, a] / self.draws[:, group, b]
            value = float(np.divide(self.point[group, a], self.point[group, b]))
        return BootstrapEstimate(value, draws, round(self.point[group, b]), int(self.units[group, b]), (0.0, 1.0) if share else None)

    def column(self, names: list[str], group: int = 0) -> tuple[Floats, Floats]:
        """Columns as they are (c,), and in each resample (R, c)."""
        at = [self.names[name] for name in names]
        return self.point[group, at], self.draws[:, group, at]


def resample(
    columns: Mapping[str, Column],
    group: NDArray[np.integer],
    groups: int,
    document: NDArray[np.integer],
    resamples: int,
    seed: int = SEED,
) -> Sums:
    """Sum columns over documents, draw the documents again and again, and sum those drawn.

    Args:
        columns: Name to (N,) numbers, or to a function that gives them.
        group: (N,) group of each row, in [0, G); a document's rows may lie in several.
        groups: G.
        document: (N,) number of the document of each row.
        resamples: R.
        seed: The same for all that is to be paired.
    """
    place = np.unique(document, return_inverse=True)[1].astype(np.int64)
    size = int(place.max()) + 1
    keys, cell = np.unique(group.astype(np.int64) * size + place, return_inverse=True)  # a cell: one document's rows in one group
    sums = np.empty((len(keys), len(columns)))
    for index, column in enumerate(columns.values()):
        values = column() if callable(column) else column
        sums[:, index] = np.bincount(cell, weights=values.astype(np.float64), minlength=len(keys))
    of_group, of_document = np.divmod(keys, size)
    ends = np.searchsorted(of_group, np.arange(groups + 1))
    cells = [slice(ends[i], ends[i + 1]) for i in range(groups)]
    draws = np.empty((resamples, groups, len(columns)))
    generator, block = np.random.default_rng(seed), max(BLOCK_ELEMENTS // size, 1)
    for start in range(0, resamples, block):
        weights = _drawn(generator, min(block, resamples - start), size)
        for index, mine in enumerate(cells):
            draws[start : start + len(weights), index] = weights[:, of_document[mine]] @ sums[mine]
    point = np.stack([sums[mine].sum(0) for mine in cells])
    units = np.stack([np.count_nonzero(sums[mine], axis=0) for mine in cells])
    return Sums({name: index for index, name in enumerate(columns)}, point, draws, units)


def _drawn(generator: np.random.Generator, resamples: int, size: int) -> Floats:
    """Number of draws of each document, (resamples, D), with replacement."""
    picks = generator.integers(0, size, (resamples, size)) + size * np.arange(resamples)[:, None]
    return np.bincount(picks.ravel(), minlength=resamples * size).reshape(resamples, size).astype(np.float64)
