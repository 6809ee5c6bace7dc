"""Hugging Face configurations from shapes; counts of parameters and FLOPs.

Models are built on the meta device to be counted, so a 1B shape costs no memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

from conf.errors import UserError
from conf.schema.ladder import Shape
from models.base.interface import Interface

AUTO_CLASSES = {
    "causal-lm": "AutoModelForCausalLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
}

FIRST_TOKEN_ONLY = {"pooler", "pre_classifier", "classifier"}  # modules of an encoder that see one position of a sequence


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
    """

    parameters: int
    non_embedding: int
    forward_flops: float
    tokens: int
    used_flops: float | None = None


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
    if interface.workload != "causal-lm":
        common["num_labels"] = interface.classes
    if shape.family == "vit":
        assert interface.image_shape is not None
        channels, height, width = interface.image_shape
        if height != width or height % shape.patch_size:
            raise UserError.about(
                "shape.patch_size",
                shape.patch_size,
                f"a divisor of square images; these are {height} x {width}",
                "Choose another patch_size.",
            )
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
        bos_token_id=interface.end_id,
        use_cache=False,
    )


def build(config: Any, workload: str) -> nn.Module:
    """A model with fresh weights (torch's global generator decides them), in fp32 and with torch's fused attention."""
    import transformers

    auto = getattr(transformers, AUTO_CLASSES[workload])
    return cast(nn.Module, auto.from_config(config, attn_implementation="sdpa", dtype=torch.float32))


def count(model: nn.Module, sequence_length: int) -> Size:
    """Count a model's parameters and forward operations; works on the meta device.

    The operations are those of matrix products: every linear layer and convolution, the output head, and attention's two products
    over the whole sequence (not halved for causal masks, as `torch.utils.flop_counter` counts).
    """
    config = cast(Any, model).config
    parameters: dict[int, int] = {id(p): p.numel() for p in model.parameters()}
    embedding_ids = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    head = cast(Any, model).get_output_embeddings()
    if head is not None:
        embedding_ids.add(id(head.weight))
    vision = hasattr(config, "patch_size")
    tokens = (config.image_size // config.patch_size) ** 2 + 1 if vision else sequence_length
    products = sum(_products(name, m, tokens) for name, m in model.named_modules())
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 4 * config.num_hidden_layers * tokens * tokens * config.num_attention_heads * width
    total = sum(parameters.values())
    embeddings = sum(n for i, n in parameters.items() if i in embedding_ids)
    return Size(total, total - embeddings, 2.0 * products + attention, tokens)


def with_used_ids(size: Size, model: nn.Module, ids: int) -> Size:
    """The size of a language model, with its operations where the head is cut to so many ids."""
    weight = cast(Any, model).get_output_embeddings().weight
    return replace(size, used_flops=size.forward_flops - 2.0 * (weight.shape[0] - ids) * weight.shape[1] * size.tokens)


def _products(name: str, module: Any, tokens: int) -> int:
    """Multiplications of a module's weight over one sequence; 0 where it is no matrix product."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Conv2d):
        return module.weight.numel() * (tokens - 1)  # patches; the class token is no patch
    if not isinstance(module, nn.Linear | Conv1D):
        return 0
    return module.weight.numel() * (1 if FIRST_TOKEN_ONLY & set(name.split(".")) else tokens)


def size_of(shape: Shape, interface: Interface) -> Size:
    """Size of a shape, without allocating its weights."""
    with torch.device("meta"):
        return count(build(config_for(shape, interface), interface.workload), interface.sequence_length)
