"""How a model is taught: the objective and its schedules, the teacher's signals, the training."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from conf.schema.base import Settings, setting

Precision = Literal["auto", "bf16", "fp32"]
ObjectiveKind = Literal["forward-kl", "reverse-kl", "jsd", "skew-kl", "skew-reverse-kl", "tvd", "dkd", "logit-mse", "taid"]


class Schedule(Settings):
    """A value over the course of training: constant, or from start to end along half a cosine. A bare number is a constant."""

    kind: Literal["constant", "cosine"] = setting("constant", "constant: start throughout; cosine: from start to end")
    start: float = setting(..., "Value at the first step")
    end: float | None = setting(None, "Value at the last step (cosine)")

    @model_validator(mode="before")
    @classmethod
    def _number_is_constant(cls, value: Any) -> Any:
        return value if isinstance(value, dict | Schedule) else {"start": value}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        whole = handler(core)
        start = handler.resolve_ref_schema(whole)["properties"]["start"]
        number = {key: start[key] for key in start if key in ("type", "minimum", "maximum", "exclusiveMinimum")}
        return {"anyOf": [{"title": "constant", **number}, {**whole, "title": "course"}]}

    @model_validator(mode="after")
    def _cosine_needs_an_end(self) -> Schedule:
        if (self.kind == "cosine") != (self.end is not None):
            given = f"an end of {self.end:g}" if self.end is not None else "no end"
            raise ValueError(f"got kind {self.kind!r} with {given}; allowed: cosine with an end, constant without. Add or drop the end.")
        return self


class Alpha(Schedule):
    """Weight of the teacher in the loss; the labels weigh 1 - alpha."""

    start: float = setting(..., "Weight of the teacher at the first step", "fraction", ge=0, le=1)
    end: float | None = setting(None, "Weight of the teacher at the last step (cosine)", "fraction", ge=0, le=1)


class Temperature(Schedule):
    """Temperature by which teacher and student logits are divided."""

    start: float = setting(..., "Temperature at the first step", "ratio", gt=0, le=100)
    end: float | None = setting(None, "Temperature at the last step (cosine)", "ratio", gt=0, le=100)


class Feature(Settings):
    """A loss on what student and teacher compute inside, beside their answers; see docs/objectives.md."""

    kind: Literal["hidden", "minilm"] = setting(
        "hidden", "hidden: last hidden states, through a projector that is discarded; minilm: relations of the last attention (encoders)"
    )
    weight: float = setting(1.0, "Weight beside the loss of the answers", "ratio", gt=0, le=1e4)
    form: Literal["cosine", "mse"] = setting("cosine", "cosine: 1 - cos; mse: mean squared difference (hidden)")


class Objective(Settings):
    """The loss `(1 - alpha) CE + alpha T^2 D(teacher, student)`; see docs/method.md and docs/objectives.md."""

    kind: ObjectiveKind = setting("forward-kl", "Divergence between teacher and student")
    alpha: Alpha = setting(Alpha(start=0.9), "Weight of the teacher: a number, or {kind: cosine, start, end}", "fraction")
    temperature: Temperature = setting(Temperature(start=1.0), "Temperature: a number, or {kind: cosine, start, end}", "ratio")
    beta: float = setting(0.5, "The teacher's side of the divergence; 0: forward KL, 1: reverse KL (jsd)", "fraction", ge=0, le=1)
    skew: float = setting(0.1, "Share mixed into the second distribution (skew-kl, skew-reverse-kl)", "fraction", ge=0, lt=1)
    target_weight: float = setting(1.0, "Weight of the label's probability (dkd)", "ratio", ge=0, le=1e3)
    other_weight: float = setting(8.0, "Weight of the other classes (dkd)", "ratio", ge=0, le=1e3)
    standardize: bool = setting(False, "Compare z-scores of each row's logits instead of logits; temperature 2 suits them")
    combine: Literal["sum", "mean"] = setting(
        "sum", "Several teachers: sum: mean of the divergences to each; mean: divergence to the mean of their probabilities"
    )
    keep: float = setting(0.75, "Several teachers: probability with which each is kept in a step", "probability", gt=0, le=1)
    wrong_teacher: Literal["none", "correct-only", "confidence-gate", "correct"] = setting(
        "none",
        "Where the teacher's first choice is not the label: none: follow it; correct-only: do not; confidence-gate: weigh every row by the "
        "teacher's probability of the label; correct: move probability to the label first",
    )
    margin: float = setting(0.2, "By how much the label then leads the teacher's first choice (correct)", "probability", ge=0, lt=1)
    features: tuple[Feature, ...] = setting((), "Losses on what both models compute inside", "losses")


class Training(Settings):
    """How a model is trained. One loop serves every workload, the teacher included."""

    steps: int = setting(..., "Optimisation steps", "steps", ge=1)
    batch_size: int = setting(32, "Examples in an optimisation step: all micro-batches and all processes together", "sequences", ge=1)
    accumulation: int = setting(1, "Micro-batches that an optimisation step is split into, to save memory", "micro-batches", ge=1)
    recompute: bool = setting(
        False, "Keep only what lies between layers and compute the rest again for the gradient: less memory, more time", identity=False
    )
    learning_rate: float = setting(4e-3, "Peak learning rate of AdamW", "1/step", gt=0, le=10)
    schedule: Literal["cosine", "warmup-stable-decay"] = setting("cosine", "Course of the learning rate after the warm-up")
    warmup: float = setting(0.05, "Share of the steps in which the learning rate rises linearly", "fraction of steps", ge=0, lt=1)
    decay: float = setting(0.2, "Share of the steps in which it falls at the end (warmup-stable-decay)", "fraction of steps", gt=0, le=1)
    final_ratio: float = setting(0.05, "Last learning rate, relative to the peak", "ratio", ge=0, le=1)
    weight_decay: float = setting(0.05, "AdamW's weight decay on matrices", "1/step", ge=0, le=10)
    beta1: float = setting(0.9, "AdamW's decay of the gradient's mean", "ratio", ge=0, lt=1)
    beta2: float = setting(0.95, "AdamW's decay of the gradient's square", "ratio", ge=0, lt=1)
    clip: float = setting(1.0, "Largest gradient norm; larger gradients are scaled down", "norm", gt=0)
    precision: Precision = setting("auto", "bf16: autocast; fp32: everywhere; auto: bf16 where the processor is fast at it")
    validate_every: int = setting(100, "Validate after this many steps", "steps", ge=1)
    patience: int | None = setting(None, "Stop after this many validations without improvement; none: train all steps", "validations", ge=1)
    checkpoint_every: int = setting(100, "Write a checkpoint after this many steps; the newest two are kept", "steps", identity=False, ge=1)
    explosion: float = setting(3.0, "Stop when the loss exceeds this many times a uniform guess's, or its first value", "ratio", gt=1)

    @model_validator(mode="after")
    def _fits(self) -> Training:
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"got batch_size {self.batch_size} and accumulation {self.accumulation}; allowed: an accumulation that divides batch_size. "
                "Change one."
            )
        if self.schedule == "warmup-stable-decay" and self.warmup + self.decay > 1:
            raise ValueError(f"got warmup {self.warmup:g} and decay {self.decay:g}; allowed: a sum of at most 1. Lower one.")
        return self


class Signals(Settings):
    """Where the teacher's answers come from: the teacher itself beside the student, or a cache on disk; see docs/signals.md."""

    source: Literal["live", "cached", "auto"] = setting(
        "live",
        "live: the teacher runs beside the student; cached: it answers once, onto disk; auto: cached where the answers are used more than "
        "once, by several students or epochs",
    )
    kind: Literal["sampled", "top-k", "full"] = setting(
        "sampled",
        "What is kept of an answer: sampled: counts of random draws, unbiased; top-k: the most probable ids and the mass of the rest; "
        "full: everything, for small vocabularies",
    )
    k: int = setting(50, "Ids kept of each answer (top-k)", "ids", ge=1, le=4096)
    draws: int = setting(50, "Random draws from each answer (sampled)", "draws", ge=1, le=4096)
    seed: int = setting(0, "Seed of the draws (sampled)", "seed", ge=0, lt=2**31)
