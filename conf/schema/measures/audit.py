"""Settings of the audit: control, thresholds, smallest samples, bounds for gates."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import field_validator, model_validator

from conf.schema.base import Settings, setting

LEAST_DOCUMENTS = 15  # below it the interval of a figure holds the true value too seldom, and there is none by default
THRESHOLDS = "a list of one or more different probabilities between 0 and 1"


class Audit(Settings):
    """Audit of errors that a student inherits from its teachers, after every stage; see docs/explanation/audits.md."""

    enabled: bool = setting(True, "Audit every student", identity=False)
    control: bool = setting(
        False,
        "Also train the same student without a teacher: only errors that this control does not make are inherited. Costs that training",
        identity=False,
    )
    thresholds: tuple[float, ...] = setting(
        (0.7, 0.9),
        "Probabilities from which an answer counts as confident",
        "probability",
        identity=False,
        allowed=THRESHOLDS,
        min_length=1,
    )
    resamples: int = setting(1000, "Bootstrap resamples of documents behind each interval", "resamples", identity=False, ge=100, le=10_000)
    min_count: int = setting(30, "Smallest number of rows (examples, tokens) behind a figure", "rows", identity=False, ge=2, le=10**9)
    min_documents: int = setting(
        LEAST_DOCUMENTS,
        "Smallest number of documents behind a figure and its interval; with fewer than 15 an interval of 95 % may be one of 84 %",
        "documents",
        identity=False,
        ge=2,
        le=10**9,
    )
    false_discovery: float = setting(
        0.05, "Expected share of false flags among the flagged slices (Benjamini-Hochberg)", "share", identity=False, gt=0, lt=1
    )
    smallest: float = setting(
        0.02,
        "Smallest excess error of a flagged slice: share of rows; nats for the gaps of causal-lm",
        "share or nats",
        identity=False,
        gt=0,
        le=1000.0,
    )
    worst: int = setting(100, "Number of worst examples kept as a Parquet file", "examples", identity=False, ge=0, le=100_000)

    @field_validator("thresholds", mode="after")
    @classmethod
    def _thresholds_are_probabilities(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < each < 1 for each in value) or len(set(value)) < len(value):
            raise ValueError(f"got {list(value)}; allowed: {THRESHOLDS}. Change them.")
        return tuple(sorted(value))


OWN = ("ece", "nll", "brier", "accuracy")
OF_TEACHER = ("agreement", "kl", "knowledge_loss", "knowledge_gain", "calibration", "inheritance", "inheritance_excess", "amplification")
FIGURES = (*OWN, *(f"{teacher}.{name}" for teacher in ("parent", "root") for name in OF_TEACHER))


class AuditLimit(Settings):
    """A bound of an audited figure; it holds where the whole 95 % interval lies within it."""

    figure: str = setting(..., "Name of the figure", "name", allowed=f"one of {', '.join(FIGURES)}")
    most: float | None = setting(None, "Upper bound; none: not checked", "as the figure", ge=-1e9, le=1e09)
    least: float | None = setting(None, "Lower bound; none: not checked", "as the figure", ge=-1e9, le=1e09)

    @model_validator(mode="after")
    def _bounds_a_known_figure(self) -> AuditLimit:
        if self.figure not in FIGURES:
            raise ValueError(f"got figure {self.figure!r}; allowed: {', '.join(FIGURES)}. Choose one of them.")
        if self.most is None and self.least is None:
            raise ValueError(f"got neither most nor least for {self.figure}; allowed: one of them or both. Add one.")
        return self


class Bound(NamedTuple):
    """A bound of an audited figure, and the setting that sets it."""

    setting: str
    figure: str
    most: float | None = None
    least: float | None = None


def bounds(
    amplification: float | None, confident: float | None, ece: float | None, others: tuple[AuditLimit, ...], thresholds: tuple[float, ...]
) -> list[Bound]:
    """The bounds of a gate's settings, each against parent and root."""
    limits = [] if ece is None else [Bound("max_ece", "ece", ece)]
    for teacher in ("parent", "root"):
        if amplification is not None:
            limits.append(Bound("max_slice_amplification", f"{teacher}.amplification", amplification))
        if confident is not None:
            names = [f"{teacher}.confident_inheritance_{threshold:g}_excess" for threshold in thresholds]
            limits += [Bound("max_confidently_wrong_excess", name, confident) for name in names]
    return [*limits, *(Bound(f"audited[{i}]", limit.figure, limit.most, limit.least) for i, limit in enumerate(others))]


def check_gate(key: str, limits: list[Bound], audit: Audit) -> None:
    """Refuse a gate with a bound of a figure that no audit measures.

    Raises:
        ValueError: There is no audit, or no control to compare with.
    """
    for bound in limits:
        if not audit.enabled:
            raise ValueError(
                f"{key}.{bound.setting}: needs an audited figure; allowed: with audit.enabled true. Set it, or leave this out."
            )
        if bound.figure.endswith("_excess") and not audit.control:
            raise ValueError(f"{key}.{bound.setting}: needs an excess over the control; allowed: with audit.control true. Set it.")
