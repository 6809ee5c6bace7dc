"""The roofline: least time of an answer, from bytes, operations and overhead.

`t = L t0 + (weight bytes + B x key and value bytes) / bandwidth + head`, or the time of its operations if longer. Williams, Waterman
and Patterson 2009, "Roofline"; for decoding of language models see Pope et al. 2022, arXiv:2211.05102. All three
constants are measured: t0 and head on models too narrow to compute anything, the bandwidth on a matrix-vector product over as many bytes
as the model has weights, so that a model that fits a processor's cache is judged by the cache.
"""

from __future__ import annotations

import time
from copy import deepcopy
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from models.architectures.shapes import build, count
from models.speed.latency import RequestShape, measure_rounds, sequence_tokens

COLUMNS = 1024  # of the matrix by which the bandwidth is measured
LEAST_BYTES = 2**16
FEW, MANY = 1, 5  # layers of the narrow models whose difference gives t0
NARROW = 4  # features of their heads


class Overhead(NamedTuple):
    """Seconds that are spent whatever the width: of each layer, and of all the rest."""

    layer: float
    head: float


class Bytes(NamedTuple):
    """Bytes that an answer reads: all weights, and the keys and values of one position of one request."""

    weights: int
    key_value: int


def bandwidth(size: int, dtype: torch.dtype, device: torch.device, tries: int = 20) -> float:
    """Bytes a second of a matrix-vector product over `size` bytes: the best of a few tries, after one that warms it up."""
    rows = max(size, LEAST_BYTES) // (COLUMNS * dtype.itemsize)
    matrix, vector = torch.ones(rows, COLUMNS, dtype=dtype, device=device), torch.ones(COLUMNS, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(tries + 1):
        began = time.perf_counter()
        (matrix @ vector)[0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - began)
    return rows * COLUMNS * dtype.itemsize / best


def overhead(model: nn.Module, workload: str, rounds: int = 30) -> Overhead:
    """Measure t0 and the head's time, at best, on models of the same architecture, a few features wide, of one layer and of five."""
    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    narrow = {str(layers): build(_narrow(cast(Any, model).config, layers), workload).to(device, dtype).eval() for layers in (FEW, MANY)}
    request = RequestShape(1, 2)
    times = measure_rounds(narrow, workload, [1], request, rounds, warmup=5)
    few, many = (min(times[str(layers)][1].decode or times[str(layers)][1].whole) for layers in (FEW, MANY))
    layer = max(many - few, 0.0) / (MANY - FEW)
    return Overhead(layer, max(few - FEW * layer, 0.0))


def _narrow(config: Any, layers: int) -> Any:
    """The configuration with so many layers of the least width that its heads allow."""
    small = deepcopy(config)
    heads = small.num_attention_heads
    small.update({"num_hidden_layers": layers, "hidden_size": NARROW * heads, "intermediate_size": NARROW})
    if getattr(small, "head_dim", None) is not None:
        small.head_dim = NARROW
    if getattr(small, "layer_types", None):
        small.layer_types = small.layer_types[:1] * layers
    return small


def bytes_of(model: nn.Module) -> Bytes:
    """Bytes of a model's weights, a shared matrix once; and of the keys and values of one position, in all layers."""
    config, parameters = cast(Any, model).config, {id(p): p for p in model.parameters()}
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    itemsize = next(iter(parameters.values())).element_size()
    return Bytes(sum(p.numel() * p.element_size() for p in parameters.values()), 2 * config.num_hidden_layers * heads * width * itemsize)


def least_seconds(layers: int, fixed: Overhead, moved: float, speed: float, operations: float, flops: float) -> float:
    """The roofline: `layers x t0 + max(bytes moved / bandwidth, operations / peak) + head`, in seconds.

    Args:
        layers: L.
        fixed: t0 and the head's time.
        moved: Bytes that must come from memory.
        speed: Bytes a second.
        operations: Floating-point operations.
        flops: Operations a second at best.
    """
    return layers * fixed.layer + max(moved / speed, operations / flops) + fixed.head


def roofline_seconds(
    model: nn.Module, workload: str, batch_size: int, request: RequestShape, fixed: Overhead, speed: float, flops: float
) -> tuple[float, float | None]:
    """The roofline of a model at a batch size: of its pass over the input, and for language models of a further token, in seconds.

    A further token reads the keys and values of the prompt and, on average, of half of the new tokens.
    """
    layers, bytes_each = cast(Any, model).config.num_hidden_layers, bytes_of(model)
    tokens = sequence_tokens(model, workload, request.tokens)
    size = count(model, tokens)
    head = cast(Any, model).get_output_embeddings() if workload == "causal-lm" else None
    unasked = 0 if head is None else 2 * head.weight.numel() * (tokens - 1)  # of a prompt only the last token's logits are needed
    whole = least_seconds(layers, fixed, bytes_each.weights, speed, batch_size * (size.forward_flops - unasked), flops)
    if workload != "causal-lm":
        return whole, None
    moved = bytes_each.weights + batch_size * bytes_each.key_value * (tokens + request.new_tokens / 2)
    operations = batch_size * size.forward_flops / size.tokens
    return whole, least_seconds(layers, fixed, moved, speed, operations, flops)
