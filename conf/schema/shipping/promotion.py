"""Settings of versions in MLflow's registry, and of what a new champion must show."""

from __future__ import annotations

from typing import Literal

from conf.schema.base import Settings, setting

DELTA = 0.01  # bits per byte, or accuracy


class PromotionRules(Settings):
    """Versions in MLflow's registry, and the bounds that `ladder promote` asks of a challenger; see docs/how-to/promote.md."""

    versions: Literal["last", "all", "none"] = setting(
        "last",
        "Students of a finished ladder that become versions of the ladder's model: the last, all that passed their gates, or none",
        identity=False,
    )
    delta: float = setting(
        DELTA,
        "Largest loss against the champion that is allowed, at the lower end of its 95 % interval",
        "bits per byte (causal-lm) or accuracy",
        identity=False,
        gt=0,
        le=1000.0,
    )
    min_rows: int = setting(100, "Fewest held-out examples (tokens for causal-lm) to judge by", "examples", identity=False, ge=10, le=10**9)
    max_latency_ms: float | None = setting(
        None, "Longest median time of one request; none: no limit", "milliseconds", identity=False, gt=0, le=1e7
    )
    max_slower: float | None = setting(
        None,
        "Largest ratio of that time to the champion's, both measured in turn; none: no limit",
        "ratio",
        identity=False,
        gt=0,
        le=1e6,
    )
    max_mib: float | None = setting(None, "Largest size of the weights' files; none: no limit", "MiB", identity=False, gt=0, le=1e9)
    policy: Literal["auto", "ask"] = setting(
        "auto", "auto: a challenger that passes becomes champion; ask: a person decides, with the comparison before them", identity=False
    )
    ask_hours: float = setting(
        24.0, "Time that the question waits for its answer (ask); then no", "hours", identity=False, gt=0, le=24 * 365
    )
