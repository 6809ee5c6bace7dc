"""Settings of `ladder prove`, fixed beforehand: arms, seeds, smallest difference."""

from __future__ import annotations

import math
from typing import Literal, get_args

from pydantic import field_validator, model_validator

from conf.schema.base import Settings, setting

Arm = Literal[
    "staged",
    "staged-root",
    "ancestors",
    "direct",
    "direct-matched",
    "direct-free",
    "scratch",
    "label-smoothing",
    "pruned-only",
    "direct-cached",
    "root-cached",
    "curriculum",
    "ensemble",
    "best-of-rungs",
    "self",
    "auto",
]
IntervalMethod = Literal["t", "sign-flip", "bootstrap-t"]
Accounting = Literal["flops", "flops-free", "tokens"]
ARMS: tuple[Arm, ...] = get_args(Arm)
RouteArm = Literal["direct-cached", "root-cached", "curriculum", "ensemble", "best-of-rungs", "self"]
ROUTE_ARMS: tuple[RouteArm, ...] = get_args(RouteArm)  # routes of these names, with the FLOPs of the whole ladder
BY_DEFAULT: tuple[Arm, ...] = tuple(arm for arm in ARMS if arm not in (*ROUTE_ARMS, "auto"))  # arms of a proof that names none
MATCHED: dict[Accounting, Arm] = {"flops": "direct-matched", "flops-free": "direct-free", "tokens": "direct"}
FIRST_LOOK = 0.8  # share of the permitted error that the first look at the seeds spends; see models/base/looks.py
DELTA = {"causal-lm": 0.01}  # bits per byte
DELTA_ACCURACY = 0.005


class Comparison(Settings):
    """Comparison of a ladder with its control arms: arms, seeds, smallest difference of interest; see docs/explanation/proofs.md."""

    arms: tuple[Arm, ...] = setting(
        (),
        f"Arms to run; none: all that suit the ladder, routes apart, which are named ({', '.join(ROUTE_ARMS)}, auto; auto is among "
        "them where it is the ladder's route)",
        "arms",
        identity=False,
    )
    seeds: int = setting(5, "Replicates of every arm, paired by seed; an interval needs two at least", "seeds", identity=False, le=1000)
    delta: float | None = setting(
        None,
        "Smallest difference of interest; none: 0.01 bits per byte (causal-lm), else 0.005 of accuracy",
        "bits per byte or accuracy",
        identity=False,
        gt=0,
        le=1000.0,
    )
    confidence: float = setting(
        0.95, "Confidence of the intervals, of all looks at the same seeds together", "probability", identity=False, ge=0.5, lt=1
    )
    interval: IntervalMethod = setting(
        "t",
        "Intervals of differences: t: Student's t, for differences that are about normal; sign-flip: exact for those that are symmetric, "
        "needs 6 seeds at a confidence of 0.95; bootstrap-t: for skewed ones, wide with few seeds",
        identity=False,
        added=True,
    )
    accounting: Accounting = setting(
        "flops",
        "Direct jump that the ladder is compared with: flops: one of the same FLOPs, assistants counted (direct-matched); flops-free: "
        "assistants free, as they ship anyway (direct-free); tokens: the last student's tokens (direct)",
        identity=False,
    )
    smoothing: float = setting(0.1, "Probability that label-smoothing spreads over all classes", "fraction", identity=False, gt=0, lt=1)
    control: bool = setting(
        True, "Audit the ladder's students, with its first seed, against the same students without a teacher", identity=False
    )
    search: int = setting(
        0,
        "Trials by which the settings of every arm are searched before it is compared, as many for each; 0: the ladder's settings",
        "trials",
        identity=False,
        added=True,
        ge=0,
        le=1000,
    )
    pilot: bool = setting(False, "A tenth of every student's steps, for a first look; the root teacher is trained in full", identity=False)

    @field_validator("seeds")
    @classmethod
    def _an_interval_needs_two(cls, value: int) -> int:
        if value < 2:
            raise ValueError(f"got {value}; allowed: 2 to 1000. An interval over seeds needs at least two replicates; five narrow it much.")
        return value

    @field_validator("arms")
    @classmethod
    def _each_once(cls, value: tuple[Arm, ...]) -> tuple[Arm, ...]:
        if twice := sorted({arm for arm in value if value.count(arm) > 1}):
            raise ValueError(f"got {', '.join(twice)} more than once; allowed: each arm once. Leave the others out.")
        if len(value) == 1:
            raise ValueError(f"got {value[0]!r} alone; allowed: two arms or more. A comparison needs something to compare with.")
        return value

    @model_validator(mode="after")
    def _flips_bound_an_interval(self) -> Comparison:
        least = math.ceil(math.log2(2 / (FIRST_LOOK * (1 - self.confidence))) - 1e-9)
        if self.interval == "sign-flip" and self.seeds < least:
            raise ValueError(
                f"interval: got sign-flip with {self.seeds} seeds; allowed: {least} or more, as fewer have too few flips to bound an "
                f"interval at a confidence of {self.confidence:g}. Raise seeds, or take t or bootstrap-t."
            )
        return self

    def least(self, workload: str) -> float:
        """The smallest difference of interest, in the unit of the workload's score."""
        return DELTA.get(workload, DELTA_ACCURACY) if self.delta is None else self.delta
