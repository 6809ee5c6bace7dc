"""Models of several parts: configurations within one, and the vision tower."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

from torch import nn

VISION = ("vision_tower", "vision_model", "visual", "vision_encoder")  # names of the part that sees, within a model's body


def language_config(config: Any) -> Any:
    """The configuration of the part that reads text; the same configuration where a model has no other part."""
    return config.text_config if has_vision(config) else config


def has_vision(config: Any) -> bool:
    """Whether a configuration holds one for pictures beside one for text."""
    return getattr(config, "vision_config", None) is not None and getattr(config, "text_config", None) is not None


def parts_of(config: Any) -> Iterator[Any]:
    """A configuration, and those of its parts."""
    yield config
    if has_vision(config):
        yield from (config.text_config, config.vision_config)


def vision_tower(model: nn.Module) -> nn.Module | None:
    """The part of a vision-language model that turns pixels into features; None where it has none of the usual names."""
    body = getattr(model, "body", None) or getattr(model, "model", model)
    return next((part for name in VISION if isinstance(part := getattr(body, name, None), nn.Module)), None)


def text_tower(model: nn.Module) -> nn.Module | None:
    """The part of a model of two towers that reads texts."""
    found = getattr(getattr(model, "body", None), "text_model", None)
    return found if isinstance(found, nn.Module) else None


def text_operations(model: nn.Module, tokens: int) -> float:
    """Operations of a forward pass of the text tower over a text, in the same way as `vision_operations`; 0 without one."""
    tower = text_tower(model)
    if tower is None:
        return 0.0
    own = cast(Any, model).config.text_config
    weights = sum(m.weight.numel() for m in tower.modules() if isinstance(m, nn.Linear))
    return 2.0 * weights * tokens + 4.0 * own.num_hidden_layers * tokens**2 * own.hidden_size


def vision_operations(model: nn.Module) -> float:
    """Operations of a forward pass of the vision tower over one picture, whole where it is cut into none; 0 without a tower.

    Every linear layer and convolution over all patches, and attention's two products.
    """
    tower, config = vision_tower(model), cast(Any, model).config
    if tower is None or not has_vision(config):
        return 0.0
    own = config.vision_config
    side, patch = getattr(own, "image_size", None), getattr(own, "patch_size", None)
    if not isinstance(side, int) or not isinstance(patch, int):
        return 0.0
    tokens = (side // patch) ** 2
    weights = sum(m.weight.numel() for m in tower.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d))
    layers = getattr(own, "num_hidden_layers", None) or getattr(own, "depth", 0)
    width = getattr(own, "hidden_size", None) or getattr(own, "embed_dim", 0)
    return 2.0 * weights * tokens + 4.0 * layers * math.pow(tokens, 2) * width
