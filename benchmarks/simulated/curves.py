"""Measure an operation at several sizes, count the files that it opens, fit how it grows."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

CONSTANT, LINEAR = 0.15, 1.15  # exponents up to which a curve counts as such


@dataclass
class Counts:
    """Files opened, and entries of the folders that were listed."""

    opens: int = 0
    listed: list[str] = field(default_factory=list)

    @property
    def entries(self) -> int:
        """Entries of all listings; a folder counts as often as it was listed."""
        sizes = {path: len(os.listdir(path)) for path in set(self.listed) if os.path.isdir(path)}
        return sum(sizes.get(path, 0) for path in self.listed)


_counting: list[Counts] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _counting and event == "open":
        _counting[-1].opens += 1
    elif _counting and event in ("os.scandir", "os.listdir"):
        _counting[-1].listed.append(os.fspath(arguments[0] or "."))


@cache
def _listen() -> None:
    sys.addaudithook(_hear)  # once, and for good: a hook cannot be taken back


@contextmanager
def counting() -> Iterator[Counts]:
    """Count files opened and folders listed by this process while the block lasts, by Python's audit events."""
    _listen()
    _counting.append(Counts())
    try:
        yield _counting[-1]
    finally:
        _counting.pop()


class Point(NamedTuple):
    """An operation at one size: means of its calls. Seconds are a core's, without waiting for the disk or for other work."""

    n: int
    seconds: float
    opens: float
    entries: float


def measure(n: int, calls: Sequence[Callable[[], object]]) -> Point:
    """Time calls of the same kind, and count what they open; at least one."""
    with counting() as counts:
        began = time.process_time()
        for call in calls:
            call()
        seconds = time.process_time() - began
    return Point(n, seconds / len(calls), counts.opens / len(calls), counts.entries / len(calls))


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the least-squares line through log n and log value; values of 0 count as 1 of whatever is counted."""
    x, y = ([math.log(each or 1.0) for each in some] for some in (sizes, values))
    middle = sum(x) / len(x)
    return sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def growth(slope: float) -> str:
    """An exponent in words."""
    return "constant" if slope <= CONSTANT else "at most linear" if slope <= LINEAR else "MORE THAN LINEAR"


def table(first: str, curves: Mapping[str, Sequence[Point]]) -> str:
    """Markdown: a line for each operation, its seconds at each size, the exponents, and the counts at the largest size."""
    sizes = sorted({point.n for points in curves.values() for point in points})
    head = [first, *(f"{n:,}" for n in sizes), "exponent: all, last step", "files opened, exponent", "entries listed, exponent", "grows"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, points in curves.items():
        seconds = {point.n: point.seconds for point in points}
        fitted = [exponent([p.n for p in some], [p.seconds for p in some]) for some in (points, points[-2:])]
        counts = []
        for values in ([point.opens for point in points], [point.entries for point in points]):
            slope = exponent([point.n for point in points[-2:]], values[-2:])
            counts.append((values[-1], slope))
        cells = [f"{seconds[n]:.3g} s" if n in seconds else "" for n in sizes]
        counted = [f"{value:,.0f}, {slope:.2f}" for value, slope in counts]
        # Counts are exact; seconds decide where these do not grow.
        exact = max(slope for _, slope in counts)
        slope = exact if exact > CONSTANT else fitted[1]
        lines.append(f"| {' | '.join([name, *cells, f'{fitted[0]:.2f}, {fitted[1]:.2f}', *counted, growth(slope)])} |")
    return "\n".join(lines)
