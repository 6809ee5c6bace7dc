"""What is asked of an audit: which control, which thresholds, how much must be seen before anything is said."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import field_validator, model_validator

from conf.schema.base import Settings, setting

THRESHOLDS = "a list of one or more different probabilities between 0 and 1"


class Audit(Settings):
    """What a student has inherited from its teachers, found out after every stage; see docs/explanation/audits.md."""

    enabled: bool = setting(True, "Audit every student", identity=False)
    control: bool = setting(
        False,
        "Train the same student without a teacher, too: only what it does not err in as well is inherited. Costs that training",
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
    min_count: int = setting(30, "Fewest rows (examples, tokens) that a figure may rest on", "rows", identity=False, ge=2)
    min_documents: int = setting(10, "Fewest documents that these rows may come from", "documents", identity=False, ge=2)
    false_discovery: float = setting(
        0.05, "Expected share of false ones among the flagged slices (Benjamini-Hochberg)", "share", identity=False, gt=0, lt=1
    )
    smallest: float = setting(
        0.02,
        "Smallest excess error of a slice worth a flag: share of rows; nats for causal-lm's gaps",
        "share or nats",
        identity=False,
        gt=0,
    )
    worst: int = setting(100, "Worst examples kept as a Parquet file", "examples", identity=False, ge=0, le=100_000)

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
    most: float | None = setting(None, "Upper bound; none: not asked", "as the figure")
    least: float | None = setting(None, "Lower bound; none: not asked", "as the figure")

    @model_validator(mode="after")
    def _bounds_a_known_figure(self) -> AuditLimit:
        if self.figure not in FIGURES:
            raise ValueError(f"got figure {self.figure!r}; allowed: {', '.join(FIGURES)}. Choose one of them.")
        if self.most is None and self.least is None:
            raise ValueError(f"got neither most nor least for {self.figure}; allowed: one of them or both. Add one.")
        return self


class Bound(NamedTuple):
    """What a gate asks of an audited figure, and the setting that asks it."""

    setting: str
    figure: str
    most: float | None = None
    least: float | None = None


def bounds(
    amplification: float | None, confident: float | None, ece: float | None, others: tuple[AuditLimit, ...], thresholds: tuple[float, ...]
) -> list[Bound]:
    """The bounds that a gate's settings come to, each against parent and root."""
    found = [] if ece is None else [Bound("max_ece", "ece", ece)]
    for teacher in ("parent", "root"):
        if amplification is not None:
            found.append(Bound("max_slice_amplification", f"{teacher}.amplification", amplification))
        if confident is not None:
            names = [f"{teacher}.confident_inheritance_{threshold:g}_excess" for threshold in thresholds]
            found += [Bound("max_confidently_wrong_excess", name, confident) for name in names]
    return [*found, *(Bound(f"audited[{i}]", limit.figure, limit.most, limit.least) for i, limit in enumerate(others))]


def check_gate(key: str, asked: list[Bound], audit: Audit) -> None:
    """Refuse a gate that asks what no audit finds out.

    Raises:
        ValueError: There is no audit, or no control to compare with.
    """
    for bound in asked:
        if not audit.enabled:
            raise ValueError(f"{key}.{bound.setting}: asks for an audited figure; allowed: with audit.enabled true. Set it, or drop this.")
        if bound.figure.endswith("_excess") and not audit.control:
            raise ValueError(f"{key}.{bound.setting}: asks for an excess over the control; allowed: with audit.control true. Set it.")
