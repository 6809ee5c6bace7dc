"""Records of promotions: the judgement of a challenger, the move of the alias."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.records.base import Record
from tasks.records.run import Moment


class Judgement(Record):
    """A challenger against the champion on the same held-out examples.

    Attributes:
        metric: Primary metric: `accuracy`, or `bits_per_byte` for language models.
        champion: The champion's figure; None where there is no champion.
        challenger: The challenger's figure.
        difference: Gain of the challenger in the metric's unit, above 0 where it is better, whatever the metric's direction.
        low: Lower bound of the difference; the challenger is not worse where it is at least -delta.
        high: Upper bound.
        delta: Largest loss that is allowed (`promotion.delta`).
        rows: Examples, or tokens, that both were judged on.
        documents: Documents that these come from, the units of the bootstrap.
        data: The held-out data, in words.
        data_fingerprint: Content hash of the held-out data.
        seen: Whether one of the models may have learned from these data, in words; None: neither has.
        gate: Verdict of the challenger's gate.
        latency_ms: Median of a request of one example, by model: `champion`, `challenger` [ms].
        mib: Size of the weights' files, by model [MiB].
        reasons: Why the challenger is not promoted; none: it may be.
        notes: What else a reader should know, such as a limit that was not checked.
    """

    metric: str
    champion: float | None
    challenger: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    delta: float
    rows: int
    documents: int
    data: str
    data_fingerprint: str
    seen: str | None = None
    gate: str | None = None
    latency_ms: dict[str, float] = Field(default={})
    mib: dict[str, float] = Field(default={})
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the challenger."""
        return not self.reasons


class Promotion(Record):
    """One move of the alias `champion`: `promotions/<name>/<number>.json`.

    Attributes:
        name: The registered model, which is the ladder's name.
        version: The version that became champion.
        previous: The champion before it; None: there was none.
        kind: `promote`, or `rollback` to an earlier champion.
        state: `prepared` before MLflow's alias is moved, `done` after it; `abandoned` where the alias was not moved; `refused` where the
            judgement, or a person, was against it.
        by: Who asked for it.
        reason: Why, in words of a person.
        forced: Whether the alias was moved although the judgement had reasons against it, or without one.
        judgement: The comparison that it rests on; None: a rollback, or a forced promotion without a comparison.
        mlflow_uri: Record in MLflow whose alias it is.
    """

    name: str
    version: str
    previous: str | None
    kind: Literal["promote", "rollback"] = "promote"
    state: Literal["prepared", "done", "abandoned", "refused"] = "prepared"
    time: Moment
    by: str = ""
    reason: str = ""
    forced: bool = False
    judgement: Judgement | None = None
    run: str | None = None  # ladder run of the version
    mlflow_uri: str
