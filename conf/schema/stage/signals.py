"""Settings of the teacher's signals: source, kind, size."""

from __future__ import annotations

from typing import Literal

from conf.schema.base import Settings, setting


class Signals(Settings):
    """Source of the teacher's answers: the teacher itself beside the student, or a cache on disk; see docs/explanation/signals.md."""

    source: Literal["live", "cached", "auto"] = setting(
        "live",
        "live: the teacher runs beside the student; cached: its answers are computed once and stored; auto: cached where several students "
        "or epochs use the same answers",
    )
    kind: Literal["sampled", "top-k", "full"] = setting(
        "sampled",
        "What is stored of an answer: sampled: counts of random draws, unbiased; top-k: the most probable ids and the mass of the rest; "
        "full: everything, for small vocabularies",
    )
    k: int = setting(50, "Ids kept of each answer (top-k)", "ids", ge=1, le=4096)
    draws: int = setting(50, "Random draws from each answer (sampled)", "draws", ge=1, le=4096)
    seed: int = setting(0, "Seed of the draws (sampled)", "seed", ge=0, lt=2**31)
