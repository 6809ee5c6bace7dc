"""Quantise the weights of an ONNX graph to 8 bits."""

from __future__ import annotations

import logging
from pathlib import Path


def write_int8(source: Path, file: Path) -> None:
    """Write the graph of `source` with weights of 8 bits, one scale for each output channel; activations are quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)  # it recommends a preprocessing that shape inference of the exporter has done
    try:
        quantize_dynamic(source, file, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        root.setLevel(before)
