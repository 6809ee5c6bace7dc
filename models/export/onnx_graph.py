"""Write a model as an ONNX graph, with dynamic batch and length.

A language model takes its cache of keys and values and gives the longer one back; an empty cache is one of length 0.

Shape legend: B examples, L ids, P cached positions, H heads of keys and values, D features of a head, V ids.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

OPSET = 20
DYNAMIC = torch.export.Dim.DYNAMIC
EXTERNAL = 2**30  # bytes of weights from which on they stand in a file of their own; a graph's file may have 2 GiB


class _Logits(nn.Module):
    """A classifier's logits (B, K) of its inputs by position."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


class _Cached(nn.Module):
    """A language model's logits (B, L, V), and the cache that it leaves, of ids and the cache before them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past: list[tuple[Tensor, Tensor]]) -> Any:
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (keys, values) in enumerate(past):
            cache.update(keys, values, layer)
        output = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, past_key_values=cache, use_cache=True
        )
        layers: list[Any] = cache.layers
        return (output.logits, *(part for layer in layers for part in (layer.keys, layer.values)))


def write_onnx(model: nn.Module, workload: str, file: Path) -> None:
    """Write a model in evaluation mode, on the CPU, to an ONNX file; large weights stand beside it in `<file>.data`."""
    wrapped, inputs, shapes, names, outputs = _signature(model.eval(), workload)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            wrapped,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=shapes,
            input_names=names,
            output_names=outputs,
            verbose=False,
        )
        assert program is not None
        _strip(program.model)
        size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        program.save(str(file), external_data=size >= EXTERNAL)


def _signature(model: nn.Module, workload: str) -> tuple[nn.Module, tuple[Any, ...], Any, list[str], list[str]]:
    """The module to trace, example inputs, their dynamic dimensions, and the names of inputs and outputs."""
    config = cast(Any, model).config
    if workload == "image-classification":
        pixels = torch.zeros(2, config.num_channels, *_sides(config))
        return _Logits(model, ["pixel_values"]), (pixels,), (({0: DYNAMIC},),), ["pixel_values"], ["logits"]
    both = {0: DYNAMIC, 1: DYNAMIC}
    if workload == "sequence-classification":
        names = ["input_ids", "attention_mask"]
        ids = torch.arange(18).reshape(2, 9) % config.vocab_size
        return _Logits(model, names), (ids, torch.ones_like(ids)), ((both, both),), names, ["logits"]
    layers, heads, features = cache_shape(config)
    batch, length, past = 2, 5, 3
    ids = torch.arange(batch * length).reshape(batch, length) % config.vocab_size
    mask = torch.ones(batch, past + length, dtype=torch.long)
    positions = torch.arange(past, past + length)[None].expand(batch, length).contiguous()
    cache = [(torch.zeros(batch, heads, past, features), torch.zeros(batch, heads, past, features)) for _ in range(layers)]
    held = {0: DYNAMIC, 2: DYNAMIC}
    names = ["input_ids", "attention_mask", "position_ids", *cache_names(layers, "past")]
    return (
        _Cached(model),
        (ids, mask, positions, cache),
        (both, both, both, [(held, held)] * layers),
        names,
        ["logits", *cache_names(layers, "present")],
    )


def _strip(model: Any) -> None:
    """Remove the tracer's notes: they are larger than a small graph, and name files of this machine."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def cache_names(layers: int, side: str) -> list[str]:
    """Names of the cache's tensors, `past` or `present`, in their order."""
    return [f"{side}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def cache_shape(config: Any) -> tuple[int, int, int]:
    """Layers, heads of keys and values, and features of a head, of a language model's cache."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    features = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, heads, features


def _sides(config: Any) -> tuple[int, int]:
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks, about packages that nothing here needs, off the terminal."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
