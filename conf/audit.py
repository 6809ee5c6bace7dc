"""What is asked of an audit: which control, which thresholds, how much must be seen before anything is said."""

from __future__ import annotations

from pydantic import field_validator

from conf.settings import Settings, setting

THRESHOLDS = "a list of one or more different probabilities between 0 and 1"


class Audit(Settings):
    """What a student has inherited from its teachers, found out after every stage; see docs/audit.md."""

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
    resamples: int = setting(1000, "Bootstrap resamples of documents behind each interval", "resamples", identity=False, ge=100, le=100_000)
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
