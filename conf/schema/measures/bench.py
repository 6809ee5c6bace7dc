"""Settings of the measurement of latency and memory."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from conf.schema.base import Settings, setting

SIZES = "a list of 1 to 8 different whole numbers from 1 to 65536, such as [1, 16]"


class Bench(Settings):
    """Measurement of latency and memory: batch sizes, lengths, rounds; short after a stage, in full by `ladder bench`."""

    after_stage: bool = setting(True, "Measure each model briefly, after its evaluation", identity=False)
    stage_seconds: float = setting(
        1.5, "Longest time of the brief measurement, after its first round", "seconds", identity=False, gt=0, le=3600
    )
    batch_sizes: tuple[int, ...] = setting((1, 16), "Batch sizes to measure", "requests", identity=False, allowed=SIZES)
    prompt_tokens: int = setting(64, "Tokens of a request (text)", "tokens", identity=False, ge=1, le=1_000_000)
    new_tokens: int = setting(32, "Tokens generated for a request (causal-lm)", "tokens", identity=False, ge=1, le=1_000_000)
    repeats: int = setting(100, "Rounds; in each, every model answers one request in turn", "rounds", identity=False, ge=1, le=1_000_000)
    warmup: int = setting(5, "Warm-up rounds before them, not counted", "rounds", identity=False, ge=0, le=10_000)
    start: bool = setting(True, "`ladder bench`: also load each model in a process of its own, for load time and memory", identity=False)
    threads: int | None = setting(None, "Processor threads; none: compute.threads", "threads", identity=False, ge=1, le=4_096)
    dtype: Literal["fp32", "bf16"] = setting("fp32", "Format of weights and activations", identity=False)

    @field_validator("batch_sizes", mode="before")
    @classmethod
    def _sizes_are_a_list(cls, value: Any) -> Any:
        listed = list(value) if isinstance(value, list | tuple) else []
        valid = [size for size in listed if isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= 65536]
        if not 1 <= len(valid) <= 8 or len(valid) != len(listed) or len(set(valid)) != len(valid):
            raise ValueError(f"got {value!r}; allowed: {SIZES}. Correct it.")
        return listed
