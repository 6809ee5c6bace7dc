"""Forward operations of a model: by a formula, else by PyTorch's counter.

All counts are of matrix products and convolutions over one sequence or image, a multiplication and an addition being two operations;
attention counts whole, not halved for causal masks, as `torch.utils.flop_counter` has it.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import nn

from models.architectures.composite import text_operations, text_tower, vision_operations

# Architectures whose operations follow from their layers and from `attention_operations`; formula and counter agree within 3 %
# (tests/models/architectures/test_operations.py).
WITH_FORMULA = {
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2", "smollm3", "gpt2", "gpt_neox"),
    *("bert", "distilbert", "roberta", "electra", "vit"),
}
# Modules of an encoder that see one position of a sequence, or one embedding of it.
FIRST_TOKEN_ONLY = {"pooler", "pre_classifier", "classifier", "projection"}
USUAL_IMAGE = 224  # pixels, of an image model whose configuration does not say


def positions(config: Any, sequence_length: int) -> int:
    """Positions of one sequence, or of one image in a transformer; 1 for an image in a network of convolutions."""
    if not is_vision(config):
        return sequence_length
    if getattr(config, "num_attention_heads", None) is None or not isinstance(getattr(config, "patch_size", None), int):
        return 1
    return (config.image_size // config.patch_size) ** 2 + 1


def is_vision(config: Any) -> bool:
    """Whether a model reads images."""
    return hasattr(config, "num_channels") or hasattr(config, "patch_size")


def forward_operations(model: nn.Module, sequence_length: int) -> float:
    """Operations of a forward pass, of a vision-language model over a sequence with a picture; works on the meta device."""
    config = cast(Any, model).config
    if text_tower(model) is not None:
        return text_operations(model, sequence_length) + vision_operations(model)
    if config.model_type in WITH_FORMULA:
        return by_formula(model, sequence_length)
    return float(by_counter(model, sequence_length)) + vision_operations(model)


def by_formula(model: nn.Module, sequence_length: int) -> float:
    """Every linear layer and convolution, the output head, and attention's two products over the whole sequence."""
    config = cast(Any, model).config
    tokens = positions(config, sequence_length)
    products = sum(_products(name, module, tokens) for name, module in model.named_modules())
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2.0 * products + 4 * config.num_hidden_layers * tokens * tokens * config.num_attention_heads * width


def _products(name: str, module: Any, tokens: int) -> int:
    """Multiplications of a module's weight over one sequence; 0 where it is no matrix product."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Conv2d):
        return module.weight.numel() * (tokens - 1)  # patches; the class token is no patch
    if not isinstance(module, nn.Linear | Conv1D):
        return 0
    return module.weight.numel() * (1 if FIRST_TOKEN_ONLY & set(name.split(".")) else tokens)


def by_counter(model: nn.Module, sequence_length: int) -> int:
    """PyTorch's count of one forward pass without memory; some layers need real numbers, and are then run with weights.

    In those, all layers count alike: a model of one and one of two layers are run, and the others added.
    """
    config = cast(Any, model).config
    try:
        return _counted(type(model), config, sequence_length, "meta")
    except RuntimeError:  # it reads a number, which the meta device does not have
        if getattr(config, "num_hidden_layers", None) is None:
            return _counted(type(model), config, sequence_length, "cpu")
    one, two = (_counted(type(model), _shallow(config, depth), sequence_length, "cpu") for depth in (1, 2))
    return one + (config.num_hidden_layers - 1) * (two - one)


def _shallow(config: Any, depth: int) -> Any:
    short = copy.deepcopy(config)
    short.num_hidden_layers = depth
    return short


def _counted(kind: Any, config: Any, sequence_length: int, device: str) -> int:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.random.fork_rng(devices=[]), torch.device(device):
        twin = kind(copy.deepcopy(config)).eval().requires_grad_(False)
        if is_vision(config):
            side = getattr(config, "image_size", None) or USUAL_IMAGE
            side = side if isinstance(side, tuple | list) else (side, side)
            inputs = {"pixel_values": torch.zeros(1, getattr(config, "num_channels", 3), *side)}
        else:
            inputs = {"input_ids": torch.zeros(1, sequence_length, dtype=torch.int64)}
    # On attention's plain path every product is seen.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        twin(**inputs)
    return counter.get_total_flops()
