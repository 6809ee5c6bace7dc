"""Fit the exponent `a` of `speed-up = size ratio ** a` to measurements.

No torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tasks.records.bench import Case, ModelBench, Spread
from tasks.records.format import NONE, human, milliseconds, rate

CONFIDENCE = 0.95
FEWEST = 3  # students for an interval: with two, Student's factor for one degree of freedom is 12.7
CLAIMED = (3.0, 5.0)  # the usual claim: speed-up of a model that is ten times smaller
PARTS = {"whole": "a whole request", "prefill": "the first token", "decode": "each further token"}


class Exponent(NamedTuple):
    """A fitted exponent.

    Attributes:
        value: `a`; 1: as much faster as smaller, 0: not faster at all.
        low: Lower end of its 95 % interval; None with fewer than three students, whose interval would span everything.
        high: Upper end.
        students: That it was fitted to.
    """

    value: float
    low: float | None
    high: float | None
    students: int

    def at_ten(self) -> tuple[float, float | None, float | None]:
        """Speed-up of a model a tenth the size, and the ends of its interval."""
        return 10**self.value, None if self.low is None else 10**self.low, None if self.high is None else 10**self.high


class Row(NamedTuple):
    """One model in one part of the measurement; `speed_up` and `ratio` are against the first model, the root."""

    name: str
    parameters: int
    spread: Spread
    throughput: float  # requests a second; tokens a second for decode
    speed_up: float
    ratio: float
    limit: float | None  # seconds that the roofline leaves
    limit_speed_up: float | None


class Part(NamedTuple):
    """One part of the measurement at one batch size, for all models."""

    part: str
    batch_size: int
    rows: tuple[Row, ...]
    exponent: Exponent | None  # of the measured medians
    limit_exponent: Exponent | None  # of the roofline
    against_root: bool = True  # whether the first model is the root; else there are no speed-ups

    @property
    def title(self) -> str:
        """For readers."""
        return f"{PARTS[self.part]}, {self.batch_size} at once"


def fit_exponent(ratios: Sequence[float], speed_ups: Sequence[float]) -> Exponent | None:
    """Least squares through the origin of `log speed-up` on `log ratio`, with Student's interval; None without a student of another size.

    Args:
        ratios: Parameters of the root over those of each student.
        speed_ups: Time of the root over that of each student.
    """
    points = [(math.log(x), math.log(y)) for x, y in zip(ratios, speed_ups, strict=True) if x != 1]
    squares = sum(x * x for x, _ in points)
    if not squares:
        return None
    value, free = sum(x * y for x, y in points) / squares, len(points) - 1
    if len(points) < FEWEST:
        return Exponent(value, None, None, len(points))
    from scipy.special import stdtrit  # scipy.stats takes half a second to import, in every report

    rest = sum((y - value * x) ** 2 for x, y in points)
    half = float(stdtrit(free, (1 + CONFIDENCE) / 2)) * math.sqrt(rest / free / squares)
    return Exponent(value, value - half, value + half, len(points))


def parts(models: Sequence[ModelBench], root: str | None = None) -> list[Part]:
    """Every part of the measurement at every batch size that all models have.

    Args:
        models: The measurements, the root's first.
        root: Hash of the root's weights; where the first model has others, the root was not measured, and no speed-up is given.
            None: the first model is the root.
    """
    found = _parts(models)
    if models and root is not None and models[0].weights_sha256 != root:
        return [part._replace(exponent=None, limit_exponent=None, against_root=False) for part in found]
    return found


def _parts(models: Sequence[ModelBench]) -> list[Part]:
    if not models:
        return []
    sizes = [case.batch_size for case in models[0].cases if all(model.case(case.batch_size) for model in models)]
    return [part for name in PARTS for size in sizes if (part := _part(name, size, [(m, case) for m in models if (case := m.case(size))]))]


def headline(found: Iterable[Part]) -> Part | None:
    """The part that answers how much faster a smaller model is: one request at a time, and for language models a further token of it."""
    ranked = sorted(found, key=lambda part: (part.batch_size, part.part != "decode"))
    return ranked[0] if ranked else None


def _part(name: str, size: int, cases: list[tuple[ModelBench, Case]]) -> Part | None:
    spreads = [getattr(case, name) for _, case in cases]
    if any(spread is None for spread in spreads):
        return None
    roofs = [_limit(model, name, size) for model, _ in cases]
    root, rows = spreads[0], list[Row]()
    for (model, case), spread, roof in zip(cases, spreads, roofs, strict=True):
        throughput = case.tokens_per_second if name == "decode" else size / spread.mean
        rows.append(
            Row(
                name=model.name,
                parameters=model.parameters,
                spread=spread,
                throughput=throughput or 0.0,
                speed_up=root.p50 / spread.p50,
                ratio=cases[0][0].parameters / model.parameters,
                limit=roof,
                limit_speed_up=roofs[0] / roof if roof and roofs[0] else None,
            )
        )
    ratios, lines = [row.ratio for row in rows[1:]], [row.limit_speed_up for row in rows[1:]]
    roofed = [line for line in lines if line is not None]
    limit = fit_exponent(ratios, roofed) if len(roofed) == len(lines) else None
    return Part(name, size, tuple(rows), fit_exponent(ratios, [row.speed_up for row in rows[1:]]), limit)


def _limit(model: ModelBench, part: str, size: int) -> float | None:
    """The roofline's time of a part; a whole request is its prefill and every further token."""
    line = next((limit for limit in model.limits if limit.batch_size == size), None)
    if line is None or part == "prefill":
        return line and line.prefill
    if part == "decode":
        return line.decode
    return line.prefill + (line.decode or 0.0) * max(model.new_tokens - 1, 0)


def answer(part: Part) -> str:
    """One sentence: how much faster a model a tenth the size is here, against the usual claim."""
    fitted = part.exponent
    if not part.against_root:
        return "The root was not measured, so there are no speed-ups: `ladder bench` measures all models of a run, its root among them."
    if fitted is None:
        return "No student of another size was measured, so nothing is said about how speed goes with size."
    value, low, high = fitted.at_ten()
    sentence = f"For {part.title}, a model a tenth the size is {value:.1f}x as fast here"
    least, most = CLAIMED
    claim = f'"10x smaller is {least:.0f}-{most:.0f}x faster"'
    if low is None or high is None:
        students = "one student" if fitted.students == 1 else f"{fitted.students} students"
        return f"{sentence} (exponent {fitted.value:.2f}, from {students}: too few for an interval)."
    sentence += f" (95 % interval {low:.1f} to {high:.1f}; exponent {fitted.value:.2f}, from {fitted.students} students): "
    if low > most:
        return f"{sentence}more than {claim}."
    if high < least:
        return f"{sentence}less than {claim}."
    if low >= least and high <= most:
        return f"{sentence}as {claim} says."
    return f"{sentence}{claim} is neither shown nor refuted."


def unit(part: Part) -> str:
    """Unit of a part's throughput."""
    return "tokens/s" if part.part == "decode" else "requests/s"


def cells(part: Part) -> list[list[str]]:
    """A row of each model: name, parameters, p50, p95, p99 and roofline in milliseconds, speed-up, throughput."""
    return [
        [
            row.name,
            human(row.parameters),
            *(milliseconds(value) for value in (row.spread.p50, row.spread.p95, row.spread.p99)),
            NONE if row.limit is None else milliseconds(row.limit),
            f"{row.speed_up:.2f}x" if part.against_root else NONE,
            rate(row.throughput),
        ]
        for row in part.rows
    ]
