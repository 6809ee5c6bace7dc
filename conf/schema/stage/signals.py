"""Settings of the teacher's signals: source, kind, size."""

from __future__ import annotations

from typing import Literal

from conf.schema.base import Settings, setting
from conf.schema.generate import Endpoint


class Signals(Settings):
    """Source of the teacher's answers: the teacher itself beside the student, or a cache on disk; see docs/explanation/signals.md."""

    source: Literal["live", "cached", "auto", "on-policy"] = setting(
        "live",
        "live: the teacher runs beside the student; cached: its answers are computed once and stored; auto: cached where several students, "
        "epochs, or pilots of route auto use the same answers; on-policy: live, on text that the student itself writes (causal-lm)",
    )
    kind: Literal["sampled", "top-k", "full"] = setting(
        "sampled",
        "Stored part of an answer: sampled: counts of random draws, unbiased; top-k: the most probable ids and the mass of the rest; "
        "full: everything, for small vocabularies",
    )
    k: int = setting(50, "Ids kept of each answer (top-k, endpoint)", "ids", ge=1, le=4096)
    draws: int = setting(50, "Random draws from each answer (sampled)", "draws", ge=1, le=4096)
    seed: int = setting(0, "Seed of the draws (sampled)", "seed", ge=0, lt=2**31)
    fraction: float = setting(
        1.0,
        "Share of the steps that learn from text which the student writes; the others learn from the data (on-policy)",
        "fraction",
        added=True,
        gt=0,
        le=1,
    )
    buffer: int = setting(1, "Batches that are written at once, by the same weights (on-policy)", "batches", added=True, ge=1, le=1024)
    reuse: int = setting(1, "Steps that learn from each batch that was written (on-policy)", "steps", added=True, ge=1, le=1024)
    prompt: int | None = setting(
        None,
        "First ids of a window, which the student continues; none: half of sequence_length. Rows of prompt and completion have their own "
        "(on-policy)",
        "ids",
        added=True,
        ge=1,
        le=10**6,
    )
    tokens: int | None = setting(
        None,
        "Most ids that are written after a prompt; none: as many as sequence_length leaves (on-policy)",
        "ids",
        added=True,
        ge=1,
        le=10**6,
    )
    sampling_temperature: float = setting(
        1.0, "Temperature of the writing; 0: always the most probable id (on-policy)", "ratio", added=True, ge=0, le=100
    )
    endpoint: Endpoint | None = setting(
        None,
        "A teacher behind OpenAI's API with the student's tokenizer: it gives the `k` most probable ids at each id of a text, and the "
        "teacher here is not asked (live, on-policy); none: it is",
        added=True,
    )

    @property
    def on_policy(self) -> bool:
        """Whether the student writes the text that it learns from."""
        return self.source == "on-policy"
