"""Settings of exports: the formats of a student, and how far each may differ."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from conf.schema.base import Settings, setting
from conf.schema.shipping.formats import BOUNDS, DEFAULT_DTYPE, SHORT, Bounds, Dtype, Format


class Export(Settings):
    """A format in which a student is written, and the tolerance of its comparison with the student."""

    format: Format = setting(
        ...,
        "Format: `hf`, a Hugging Face folder; `onnx`; `onnx-int8`, with weights of 8 bits; `gguf`, for llama.cpp. Short: its name, "
        "such as onnx-int8 or gguf-q8_0",
        identity=False,
    )
    dtype: Dtype | None = setting(None, "Format of the weights in a GGUF file; none: f16", identity=False)
    examples: int = setting(
        256, "Held-out examples on which student and export are compared", "examples", identity=False, ge=1, le=1_000_000
    )
    max_kl: float | None = setting(
        None,
        "Largest mean KL divergence from the student; none: 1e-6 for hf and onnx, 1e-4, 1e-3 or 1e-2 for gguf in f32, f16 or q8_0, "
        "1e-2 for onnx-int8",
        "nats",
        identity=False,
        ge=0,
        le=1_000,
    )
    min_agreement: float | None = setting(
        None,
        "Smallest share of examples, or tokens, with the student's answer; none: .999 for hf and onnx, .99, .98 or .97 for gguf in f32, "
        "f16 or q8_0, .97 for onnx-int8",
        "fraction",
        identity=False,
        ge=0,
        le=1,
    )
    max_difference: float | None = setting(
        None,
        "Largest difference of a log-probability; none: 1e-3 for hf, 1e-2 for onnx, .1 for gguf in f32, not bounded for the others",
        "nats",
        identity=False,
        gt=0,
        le=1_000,
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """Write a name such as `gguf-q8_0` out."""
        if not isinstance(value, str):
            return value
        if value not in SHORT:
            raise ValueError(f"got {value!r}; allowed: {', '.join(SHORT)}, or a mapping with format. Choose one.")
        family, _, dtype = value.partition("-") if value.startswith("gguf") else (value, "", "")
        return {"format": family, "dtype": dtype or None}

    @model_validator(mode="after")
    def _dtype_of_gguf(self) -> Export:
        if self.dtype is not None and self.format != "gguf":
            raise ValueError(f"dtype: got {self.dtype!r}; allowed: none, for {self.format}; only gguf has one. Leave it out.")
        return self

    @property
    def name(self) -> str:
        """The format with its weights: `onnx-int8`, `gguf-f16`."""
        return f"gguf-{self.dtype or DEFAULT_DTYPE}" if self.format == "gguf" else self.format

    @property
    def bounds(self) -> Bounds:
        """The tolerance, defaults filled in."""
        usual = BOUNDS[self.name]
        return Bounds(
            usual.kl if self.max_kl is None else self.max_kl,
            usual.agreement if self.min_agreement is None else self.min_agreement,
            usual.difference if self.max_difference is None else self.max_difference,
        )
