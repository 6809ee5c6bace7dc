"""Names of the formats of exports, and their usual tolerances; imports nothing."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

Format = Literal["hf", "onnx", "onnx-int8", "gguf"]
Dtype = Literal["f32", "f16", "q8_0"]
FORMATS: tuple[str, ...] = get_args(Format)
DTYPES: tuple[str, ...] = get_args(Dtype)
SHORT: tuple[str, ...] = (*FORMATS, *(f"gguf-{dtype}" for dtype in DTYPES))
DEFAULT_DTYPE: Dtype = "f16"


class Bounds(NamedTuple):
    """The largest difference from the student that an export may have.

    Attributes:
        kl: Mean KL divergence from the student's answers to the export's, in nats.
        agreement: Share of rows on which both give the same answer.
        difference: Largest difference of a log-probability, in nats; None: not bounded.
    """

    kl: float
    agreement: float
    difference: float | None


# By name: formats that keep the weights may differ by rounding alone.
BOUNDS: dict[str, Bounds] = {
    "hf": Bounds(1e-6, 0.999, 1e-3),
    "onnx": Bounds(1e-6, 0.999, 1e-2),
    "onnx-int8": Bounds(1e-2, 0.97, None),
    "gguf-f32": Bounds(1e-4, 0.99, 0.1),
    "gguf-f16": Bounds(1e-3, 0.98, None),
    "gguf-q8_0": Bounds(1e-2, 0.97, None),
}
