"""Error rates of verdicts and intervals where the truth is known: `python -m benchmarks.verdicts [cases]`.

Proofs of two equal arms that are taken again with the advised seeds; differences that are not normal; intervals over few documents; faults
planted in a slice. Every table says how often what it shows is wrong, or found; by default 2,000 cases each, on one processor thread.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.base.looks import interval_at, seeds_to_decide
from models.base.statistics import Interval, Method, interval, outcome
from models.evaluation.audit_rows import AuditRows, Predictions, TeacherComparison
from models.evaluation.audit_slices import SliceSettings, groups_of
from models.evaluation.bootstrap import Limits, resample

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]
Rows = Sequence[Sequence[str]]
SLICE_ROWS = 60
MOST_SEEDS = 60  # a proof that needs more is given up
METHODS: tuple[Method, ...] = ("t", "sign-flip", "bootstrap-t")

# Paired differences with mean 0 and a spread of about 1.
DIFFERENCES: dict[str, Draw] = {
    "normal": lambda generator, size: generator.normal(0, 1, size),
    "heavy tails (t, 3)": lambda generator, size: generator.standard_t(3, size),
    "exponential": lambda generator, size: generator.exponential(1, size) - 1,
    "lognormal": lambda generator, size: generator.lognormal(0, 1, size) - math.exp(0.5),
}


class Followed(NamedTuple):
    """A proof that was taken again as advised: the last outcome, its seeds, its looks."""

    outcome: str
    seeds: int
    looks: int


def follow(generator: np.random.Generator, noise: float, true: float = 0.0, first: int = 5, naive: bool = False) -> Followed:
    """Take a proof, and take it again with as many seeds as are advised, keeping the old ones, until it decides; delta is 1.

    Args:
        generator: Of the differences, which are normal.
        noise: Of one difference.
        true: Their mean.
        first: Seeds of the first look.
        naive: Judge each look as if it were the only one.
    """
    looks = [list(generator.normal(true, noise, first))]
    while True:
        seeds = [gain for look in looks for gain in look]
        decided = outcome(interval(seeds) if naive else interval_at(looks), 1.0)
        needed = seeds_to_decide(looks, 1.0) if decided == "undecided" else None
        if needed is None or needed > MOST_SEEDS:
            return Followed(decided, len(seeds), len(looks))
        looks.append(list(generator.normal(true, noise, needed - len(seeds))))


def false_verdicts(noise: float, cases: int, naive: bool = False) -> float:
    """Share of such proofs of equal arms that end as `better`."""
    found = Counter(follow(np.random.default_rng(case), noise, naive=naive).outcome for case in range(cases))
    return (found["first better"] + found["second better"]) / cases


def missed_at_some_look(added: Sequence[int], cases: int, naive: bool = False) -> float:
    """Share of proofs where the interval of any look misses the true mean, whatever the verdict."""
    generator, missed = np.random.default_rng(0), 0
    for _ in range(cases):
        values = generator.normal(0, 1, sum(added)).tolist()
        ends = np.cumsum(added)
        looks = [values[end - size : end] for size, end in zip(added, ends, strict=True)]
        each = (interval(values[: ends[i]]) if naive else interval_at(looks[: i + 1]) for i in range(len(added)))
        missed += any(_misses(found) for found in each)
    return missed / cases


def missed(draw: Draw, seeds: int, method: Method, cases: int) -> float:
    """Share of first looks whose interval misses the true mean; those without an end never do."""
    generator = np.random.default_rng(seeds)
    return sum(_misses(interval_at([draw(generator, seeds).tolist()], method=method)) for _ in range(cases)) / cases


def _misses(found: Interval) -> bool:
    return not found.low <= 0 <= found.high


class Documents(NamedTuple):
    """Sums over documents of a figure, their rows, and the true figure."""

    sums: Floats
    rows: Floats
    true: float


def shares(generator: np.random.Generator, documents: int) -> Documents:
    """Errors, 10 % of them, in documents of 5 to 59 rows that differ in how hard they are."""
    rows = generator.integers(5, 60, documents)
    return Documents(generator.binomial(rows, generator.beta(1.5, 13.5, documents)).astype(float), rows.astype(float), 0.1)


def losses(generator: np.random.Generator, documents: int) -> Documents:
    """Losses that differ normally between documents of 20 rows."""
    return Documents(20 * generator.normal(2.0, 0.5, documents), np.full(documents, 20.0), 2.0)


def skewed(generator: np.random.Generator, documents: int) -> Documents:
    """Losses that differ lognormally between documents of 20 rows."""
    return Documents(20 * generator.lognormal(0, 1, documents), np.full(documents, 20.0), math.exp(0.5))


def covered(draw: Callable[[np.random.Generator, int], Documents], documents: int, cases: int) -> tuple[float, float]:
    """Share of intervals that hold the true figure: by plain percentiles of the resamples, and as they are given."""
    generator, plain, given = np.random.default_rng(documents), 0, 0
    for case in range(cases):
        found = draw(generator, documents)
        columns = {"figure": found.sums, "rows": found.rows}
        sums = resample(columns, np.zeros(documents, dtype=np.int64), 1, np.arange(documents), 1000, seed=case)
        estimate = sums.ratio("figure", "rows", share=draw is shares)
        low, high = np.percentile(estimate.draws, [2.5, 97.5])
        figure = estimate.figure(Limits(0, 2))
        assert figure.low is not None
        assert figure.high is not None
        plain += low <= found.true <= high
        given += figure.low <= found.true <= figure.high
    return plain / cases, given / cases


def flagged(copied: float, cases: int) -> tuple[float, float]:
    """Shares of audits that flag a slice of 60 rows with the teacher's errors copied by the student on a share of them, and another slice.

    Five slices of ten classes. Everywhere else teacher, student and control (the same student without a teacher) err on 10 % of the rows,
    each by itself; where errors are planted, the teacher errs, its student says the same, and the control does not.
    """
    generator, found, others = np.random.default_rng(0), 0, 0
    rows = 5 * SLICE_ROWS
    for _ in range(cases):
        target = generator.integers(0, 10, rows).astype(np.int32)
        names = ("student", "parent", "control")
        wrong = {name: generator.random(rows) < 0.1 for name in names}
        answers = {name: np.where(wrong[name], (target + generator.integers(1, 10, rows)) % 10, target) for name in names}
        planted = generator.permutation(SLICE_ROWS)[: round(copied * SLICE_ROWS)]
        answers["parent"][planted] = answers["student"][planted] = (target[planted] + 1) % 10
        answers["control"][planted] = target[planted]
        place, nothing = np.repeat(np.arange(5, dtype=np.int32), SLICE_ROWS), np.zeros(rows, dtype=np.float32)
        predictions = {name: Predictions(answers[name].astype(np.int32), nothing, nothing, nothing) for name in names}
        example = np.arange(rows, dtype=np.int32)
        document = np.arange(rows, dtype=np.int64)
        audited = AuditRows(target, place, example, place, document, predictions, {"parent": TeacherComparison(nothing, nothing)})
        kinds = {"slice": (place, tuple(map(str, range(5))))}
        groups = groups_of(audited, kinds, SliceSettings(Limits(), 1000, 0.02, 0.05, errors=True))
        found += bool(groups[0].flags)
        others += any(group.flags for group in groups[1:])
    return found / cases, others / cases


def table(headers: Sequence[str], rows: Rows) -> str:
    """A table in Markdown; figures to the right."""
    lines = [headers, ["---", *["---:"] * (len(headers) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: float) -> str:
    """`4.1 %`."""
    return f"{100 * share:.1f} %"


def tables(cases: int) -> Iterator[str]:
    """The tables, each as soon as it is ready."""
    rows = [[f"{noise:g}", *(percent(false_verdicts(noise, cases, naive)) for naive in (False, True))] for noise in (1, 2, 3, 4)]
    yield table(["noise of a pair, in deltas: equal arms called different in the end", "as judged", "each look as the only one"], rows)
    plans = ((5,), (5, 5), (5, 15), (5, 5, 10), (5, 2, 2, 2, 2))
    rows = [[" + ".join(map(str, plan)), *(percent(missed_at_some_look(plan, cases, naive)) for naive in (False, True))] for plan in plans]
    yield table(["seeds of each look: the interval of any look misses", "as judged", "each look as the only one"], rows)
    rows = [
        [f"{name}, {seeds} seeds", *(percent(missed(draw, seeds, method, cases)) for method in METHODS)]
        for name, draw in DIFFERENCES.items()
        for seeds in (5, 8, 12)
    ]
    yield table(["differences: the first look misses", *METHODS], rows)
    rows = [
        [f"{name}, {documents} documents", *map(percent, covered(draw, documents, cases))]
        for name, draw in {"shares": shares, "losses": losses, "skewed losses": skewed}.items()
        for documents in (10, 15, 20, 30, 60)
    ]
    yield table(["figures over documents: held by the interval", "percentiles", "as given"], rows)
    rows = [[f"{copied:.0%}", *map(percent, flagged(copied, -(-cases // 10)))] for copied in (0.0, 0.1, 0.2, 0.4)]
    yield table(["rows of a slice of 60 with copied errors", "slice flagged", "another flagged"], rows)


def main() -> None:
    """Print all tables."""
    cases = int(next((word for word in sys.argv[1:] if word.isdecimal()), 2000))
    for each in tables(cases):
        print(each, end="\n\n", flush=True)


if __name__ == "__main__":
    main()
