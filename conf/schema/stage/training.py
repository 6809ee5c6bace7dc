"""Settings of a training: steps, optimizer, precision, validation."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from conf.schema.base import Settings, setting

Precision = Literal["auto", "bf16", "fp32"]


class Training(Settings):
    """Training of a model, the teacher included: steps, optimizer, precision, validation."""

    steps: int = setting(..., "Optimisation steps", "steps", ge=1, le=100_000_000)
    batch_size: int = setting(
        32, "Examples in an optimisation step: all micro-batches and all processes together", "sequences", ge=1, le=1_048_576
    )
    passes: int = setting(
        1,
        "Times that each example is read: the training takes as few examples as its steps read so often, or all where they are fewer. A "
        "cached teacher answers only those",
        "passes",
        added=True,
        ge=1,
        le=1_000_000,
    )
    accumulation: int = setting(
        1, "Micro-batches that an optimisation step is split into, to save memory", "micro-batches", ge=1, le=1_048_576
    )
    recompute: bool = setting(
        False, "Keep only the activations between layers and recompute the rest for the gradient: less memory, more time", identity=False
    )
    compile: bool = setting(
        False,
        "Compile the layers of student and live teachers by torch.compile: faster steps after a start of seconds to minutes; sums differ "
        "in their last digits, and dropout draws other numbers",
        identity=False,
        added=True,
    )
    learning_rate: float = setting(4e-3, "Peak learning rate of AdamW", "1/step", gt=0, le=10)
    schedule: Literal["cosine", "warmup-stable-decay"] = setting("cosine", "Schedule of the learning rate after the warm-up")
    warmup: float = setting(0.05, "Share of the steps in which the learning rate rises linearly", "fraction of steps", ge=0, lt=1)
    decay: float = setting(
        0.2, "Share of the steps in which the learning rate falls at the end (warmup-stable-decay)", "fraction of steps", gt=0, le=1
    )
    final_ratio: float = setting(0.05, "Last learning rate, relative to the peak", "ratio", ge=0, le=1)
    weight_decay: float = setting(0.05, "AdamW's weight decay on matrices", "1/step", ge=0, le=10)
    beta1: float = setting(0.9, "AdamW's decay of the gradient's mean", "ratio", ge=0, lt=1)
    beta2: float = setting(0.95, "AdamW's decay of the gradient's square", "ratio", ge=0, lt=1)
    clip: float = setting(1.0, "Largest gradient norm; larger gradients are scaled down", "norm", gt=0, le=1e06)
    precision: Precision = setting("auto", "bf16: autocast; fp32: everywhere; auto: bf16 where the device is fast at it")
    validate_every: int = setting(100, "Validate after this many steps", "steps", ge=1, le=100_000_000)
    patience: int | None = setting(
        None, "Stop after this many validations without improvement; none: train all steps", "validations", ge=1, le=1_000_000
    )
    checkpoint_every: int = setting(
        100, "Write a checkpoint after this many steps; the newest two are kept", "steps", identity=False, ge=1, le=100_000_000
    )
    explosion: float = setting(
        3.0, "Stop when the loss exceeds this many times a uniform guess's, or its first value", "ratio", gt=1, le=1e06
    )

    @property
    def pool(self) -> int | None:
        """Examples that the training takes at most, in the order of its seed; None: all."""
        return None if self.passes == 1 else -(-self.steps * self.batch_size // self.passes)

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
