"""Hugging Face configurations from shapes; counts of parameters and FLOPs.

Models are built on the meta device to be counted, so a 1B shape costs no memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import nn

from conf.errors import UserError
from conf.schema.stage.student import Shape
from conf.schema.workloads import has_classes
from models.architectures.answers import StoredAnswers
from models.architectures.composite import language_config
from models.architectures.operations import forward_operations, positions
from models.architectures.token_answers import TokenAnswers
from models.base.interface import Interface
from models.embeddings.encoder import SentenceEncoder
from models.embeddings.two_towers import TwoTowers

AUTO_CLASSES = {
    "causal-lm": "AutoModelForCausalLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
    "image-text": "AutoModelForImageTextToText",
    "embedding": "AutoModel",
    "image-text-embedding": "AutoModel",
}


@dataclass(frozen=True)
class Size:
    """Counts of a model.

    Attributes:
        parameters: All, a tied matrix once.
        non_embedding: Without token embeddings and an untied output head.
        forward_flops: Floating-point operations of a forward pass over one sequence (a multiplication and an addition are two);
            training costs three times as many.
        tokens: Positions of one sequence, to express `forward_flops` per token.
        used_flops: `forward_flops` with the head cut to the ids that the data use; None: no ids are cut.
        width: Features of the residual stream, the last one's where it grows.
        layers: Layers, or blocks of convolutions.
    """

    parameters: int
    non_embedding: int
    forward_flops: float
    tokens: int
    used_flops: float | None = None
    width: int = field(default=1, compare=False)
    layers: int = field(default=1, compare=False)


def config_for(shape: Shape, interface: Interface) -> Any:
    """The Hugging Face configuration of `shape` for the data's `interface`, without dropout.

    Raises:
        UserError: The image is not a multiple of the patch.
    """
    import transformers

    common: dict[str, Any] = {
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.feed_forward,
        # Keeps the size of activations whatever the width: 0.022 at 2,048, about the usual 0.02, and more for narrow models, which
        # otherwise spend their first hundreds of steps on a plateau (docs/LOG.md).
        "initializer_range": shape.hidden_size**-0.5,
    }
    if has_classes(interface.workload):
        common["num_labels"] = interface.classes
    if shape.family == "vit":
        assert interface.image_shape is not None
        channels, height, width = interface.image_shape
        if height != width or height % shape.patch_size:
            divisors = ", ".join(str(size) for size in range(1, height + 1) if height % size == 0)
            remedy = f"Choose one of {divisors}." if height == width else "Set data.resize, which makes images square."
            allowed = f"a divisor of square images; these are {height} x {width}"
            raise UserError.about("shape.patch_size", shape.patch_size, allowed, remedy)
        return transformers.ViTConfig(
            **common,
            image_size=height,
            num_channels=channels,
            patch_size=shape.patch_size,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    common |= {"vocab_size": interface.vocabulary, "pad_token_id": interface.pad_id, "eos_token_id": interface.end_id}
    if shape.family == "bert":
        return transformers.BertConfig(
            **common,
            max_position_embeddings=max(interface.sequence_length, 512),
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    return transformers.LlamaConfig(
        **common,
        num_key_value_heads=shape.key_value_heads or shape.heads,
        head_dim=shape.features_of_a_head,
        max_position_embeddings=max(interface.sequence_length, 2048),
        tie_word_embeddings=shape.tied_embeddings and interface.workload == "causal-lm",
        bos_token_id=interface.begin_id,
        use_cache=False,
    )


def build(config: Any, workload: str) -> nn.Module:
    """A model with fresh weights (torch's global generator decides them), in fp32 and with torch's fused attention where it has that."""
    import transformers

    if workload == "embedding":
        return SentenceEncoder(config)
    if workload == "image-text-embedding":
        return TwoTowers(config)
    auto = getattr(transformers, AUTO_CLASSES[workload])
    return cast(nn.Module, auto.from_config(config, dtype=torch.float32))


def count(model: nn.Module, sequence_length: int) -> Size:
    """Count a model's parameters and forward operations (`models.architectures.operations`); works on the meta device."""
    config = cast(Any, model).config
    if isinstance(model, StoredAnswers | TokenAnswers):
        return Size(config.parameters, config.parameters, 0.0, sequence_length)
    parameters: dict[int, int] = {id(p): p.numel() for p in model.parameters()}
    embedding_ids = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    head = cast(Any, model).get_output_embeddings()
    if head is not None:
        embedding_ids.add(id(head.weight))
    total = sum(parameters.values())
    embeddings = sum(n for i, n in parameters.items() if i in embedding_ids)
    operations = forward_operations(model, sequence_length)
    return Size(total, total - embeddings, operations, positions(config, sequence_length), None, *_width_and_layers(config))


def _width_and_layers(config: Any) -> tuple[int, int]:
    config = language_config(config)
    widths, depths = getattr(config, "hidden_sizes", None), getattr(config, "depths", None)
    width = getattr(config, "hidden_size", None) or (widths[-1] if widths else 1)
    layers = getattr(config, "num_hidden_layers", None) or (sum(depths) if depths else 1)
    return int(width), int(layers)


def with_used_ids(size: Size, model: nn.Module, ids: int) -> Size:
    """The size of a language model, with its operations where the head is cut to so many ids."""
    weight = cast(Any, model).get_output_embeddings().weight
    return replace(size, used_flops=size.forward_flops - 2.0 * (weight.shape[0] - ids) * weight.shape[1] * size.tokens)


def size_of(shape: Shape, interface: Interface) -> Size:
    """Size of a shape, without allocating its weights."""
    with torch.device("meta"):
        return count(build(config_for(shape, interface), interface.workload), interface.sequence_length)
