"""Settings of `ladder search`: the space, the objective, trials, confirmation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import field_validator

from conf.schema.base import Settings, setting

Against = Literal["none", "parameters", "latency"]
Sampler = Literal["tpe", "random", "nsga2"]
Pruner = Literal["halving", "hyperband", "none"]
RANGE_KEYS = ("low", "high", "log", "relative", "choices")
RANGE = "a list of values, {choices: [...]}, or {low: ..., high: ..., log: true, relative: true}"
STUDY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
TRIALS = 20  # where neither trials nor a budget are given
METRICS: dict[str, tuple[str, ...]] = {  # by workload; the first is the default
    "causal-lm": ("bits_per_byte", "nll", "perplexity"),
    "sequence-classification": ("accuracy", "macro_f1", "nll", "ece"),
    "image-classification": ("accuracy", "macro_f1", "nll", "ece"),
    "image-text": ("bits_per_byte", "nll", "perplexity", "exact_match"),
    "embedding": ("similarity", "cosine", "mse", "spearman"),
    "image-text-embedding": ("similarity", "cosine", "mse", "recall"),
}
MORE_IS_BETTER = ("accuracy", "macro_f1", "exact_match", "similarity", "cosine", "spearman", "recall")


class SearchSettings(Settings):
    """Search for settings of the stages by trials, judged on the validation split; see docs/how-to/search.md."""

    space: dict[str, Any] = setting(
        {},
        "Settings of a stage, each with its values or range; stages.NAME.KEY: of one stage; none: a space that suits the workload",
        "space",
        identity=False,
        allowed="a mapping of settings of a stage to values or ranges",
    )
    stage: str | None = setting(
        None,
        "Stage whose settings are searched, below the ladder's own stages; none: all stages, judged by the last",
        "name",
        identity=False,
    )
    metric: str | None = setting(
        None,
        "Figure on the validation split by which trials are judged; none: bits_per_byte (causal-lm), similarity (embedding), else accuracy",
        "name",
        identity=False,
        allowed="bits_per_byte, nll or perplexity (causal-lm); accuracy, macro_f1, nll or ece (classification); "
        "similarity, cosine, mse or spearman (embedding)",
    )
    against: Against = setting(
        "none", "A second objective, to be small: the student's parameters, or its latency; the result is a Pareto front", identity=False
    )
    trials: int | None = setting(
        None, "Trials of the study in all; none: 20, or as many as the budget allows", "trials", identity=False, ge=1, le=10_000
    )
    budget: str | None = setting(
        None,
        "Time for trials and confirmation, such as 2h; none: no limit",
        "time",
        identity=False,
        pattern=r"^[0-9]{1,6}[smhd]$",
        allowed="a whole number with s, m, h or d, such as 2h",
    )
    sampler: Sampler = setting("tpe", "tpe: by the trials before; random; nsga2: evolution, for a second objective", identity=False)
    pruner: Pruner = setting(
        "halving",
        "Which trials go on to longer schedules: halving: the best of each rung; hyperband: several halvings; none: all in full",
        identity=False,
    )
    rungs: int = setting(
        3, "Lengths of schedules, the longest that of the ladder (halving, hyperband)", "rungs", identity=False, ge=2, le=8
    )
    factor: int = setting(3, "Ratio of one rung's steps to the next's, and of its trials", "ratio", identity=False, ge=2, le=10)
    max_parameters: int | None = setting(
        None, "Largest student that a trial may have; none: no bound", "parameters", identity=False, ge=1_000, le=10**12
    )
    seeds: int = setting(
        5,
        "Fresh seeds on which winner and defaults are compared, on the test split; 0: no confirmation",
        "seeds",
        identity=False,
        ge=0,
        le=1000,
    )
    study: str | None = setting(
        None,
        "Name of the study, by which it is continued; none: the ladder's, and the stage's",
        "name",
        identity=False,
        allowed="1 to 64 letters, digits, '.', '_' and '-', a letter or digit first",
        pattern=STUDY_NAME,
    )
    storage: str | None = setting(
        None,
        "Address of a PostgreSQL database that keeps the studies; none: the SQLite file studies.db of the home",
        "address",
        identity=False,
        allowed="postgresql://user@host/database, without a password, which the driver reads from PGPASSWORD or ~/.pgpass",
        pattern=r"^postgresql://[^\s:/@]+(?::[0-9]+)?/[^\s]+$|^postgresql://[^\s:@/]+@[^\s@/]+/[^\s]+$",
    )

    @field_validator("space")
    @classmethod
    def _ranges(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, given in flattened(value).items():
            if (wrong := _wrong(given)) is not None:
                raise ValueError(f"got {given!r} for {key}; allowed: {RANGE}. {wrong}")
        return value

    @field_validator("seeds")
    @classmethod
    def _an_interval_needs_two(cls, value: int) -> int:
        if value == 1:
            raise ValueError("got 1; allowed: 0, or 2 to 1000. An interval over seeds needs at least two.")
        return value

    @property
    def most_trials(self) -> int:
        """Trials of the study in all."""
        return self.trials or (TRIALS if self.budget is None else 10_000)


def flattened(space: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The space with dotted keys, whether they were written dotted or as nested mappings."""
    found: dict[str, Any] = {}
    for key, value in space.items():
        if isinstance(value, Mapping) and value and not set(value) & set(RANGE_KEYS):
            found |= flattened(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _wrong(given: Any) -> str | None:
    """Why a value of the space is neither choices nor a range; None: it is one."""
    choices = given.get("choices") if isinstance(given, Mapping) else given
    if isinstance(given, Mapping) and (unknown := sorted(set(given) - set(RANGE_KEYS))):
        return f"{', '.join(unknown)} is no part of a range."
    if choices is not None or not isinstance(given, Mapping):
        if isinstance(given, Mapping) and ("low" in given or "high" in given):
            return "Give choices, or low and high."
        return None if isinstance(choices, list | tuple) and choices else "Give at least one value."
    low, high = _number(given.get("low")), _number(given.get("high"))
    if low is None or high is None:
        return "low and high are numbers."
    if not low < high:
        return "low lies below high."
    return "With log, low lies above 0." if given.get("log") and low <= 0 else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None
