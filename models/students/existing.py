"""An existing checkpoint as student: its weights are the first ones.

What the data decide, classes and special ids, is set in its configuration; a head for other classes, or for another task, is made anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from conf.errors import UserError
from models.architectures.checkpoint import check_finite, check_folder, read_config
from models.architectures.configs import LENGTHS, OFFSET_POSITIONS, fit_interface, without_dropout
from models.architectures.shapes import AUTO_CLASSES
from models.base.interface import Interface

POOLED = "pooler"  # an encoder's layer for a whole text, which one trained on masked words lacks


def existing_config(folder: Path, interface: Interface, key: str) -> Any:
    """The configuration of a checkpoint, fitted to the data.

    Raises:
        UserError: The folder is no model, has fewer ids or positions than the data need, or reads other images.
    """
    check_folder(folder, f"{key}.path")
    config = read_config(folder, f"{key}.path")
    if interface.vocabulary is not None and config.vocab_size < interface.vocabulary:
        remedy = "A student answers in the ids of its teacher: choose one with the same tokenizer."
        raise UserError.about(f"{key}.path", f"{folder} with {config.vocab_size} ids", f"at least the {interface.vocabulary} here", remedy)
    have = next((limit for name in LENGTHS if (limit := getattr(config, name, None)) is not None), None)
    if have is not None and config.model_type in OFFSET_POSITIONS:
        have -= (config.pad_token_id or 0) + 1
    if interface.image_shape is None and have is not None and have < interface.sequence_length:
        remedy = f"Set data.sequence_length to at most {have}, or choose another."
        raise UserError.about(
            f"{key}.path", f"{folder} with {have} positions", f"at least {interface.sequence_length}, as data.sequence_length", remedy
        )
    if interface.image_shape is not None:
        _check_image(config, interface.image_shape, folder, key)
    vocabulary = getattr(config, "vocab_size", None)
    fit_interface(config, interface)
    if vocabulary is not None:
        config.vocab_size = vocabulary  # rows beyond the tokenizer's stay, and are cut from the answers
    without_dropout(config)
    return config


def _check_image(config: Any, shape: tuple[int, int, int], folder: Path, key: str) -> None:
    channels, side, _ = shape
    theirs = getattr(config, "num_channels", channels), getattr(config, "image_size", side)
    if theirs != (channels, side):
        given = f"{folder} for {theirs[0]} channels and {theirs[1]} pixels"
        raise UserError.about(f"{key}.path", given, f"{channels} channels and {side} pixels, as the data have", "Choose another.")


def load_existing(folder: Path, interface: Interface, seed: int, key: str) -> nn.Module:
    """Load a checkpoint as student, in fp32; weights of its head that are missing or do not fit are a function of the seed.

    Raises:
        UserError: As `existing_config`, or weights beside the head are missing.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    config = existing_config(folder, interface, key)
    check_finite(folder, key=f"{key}.path")
    auto = getattr(transformers, AUTO_CLASSES[interface.workload])
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, info = auto.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        first = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        allowed = f"a model that {AUTO_CLASSES[interface.workload]} loads"
        raise UserError.about(f"{key}.path", str(folder), allowed, f"transformers said: {first}") from error
    _check_weights(model, info, interface, folder, key)
    return cast(nn.Module, model)


def _check_weights(model: Any, info: dict[str, Any], interface: Interface, folder: Path, key: str) -> None:
    """Only a classifier's head may be made anew."""
    body = f"{model.base_model_prefix}."
    mismatched = {item if isinstance(item, str) else item[0] for item in info["mismatched_keys"]}
    lost = sorted(
        name
        for name in {*info["missing_keys"], *mismatched}
        if interface.workload == "causal-lm" or (name.startswith(body) and POOLED not in name.split("."))
    )
    if lost:
        raise UserError.about(f"{key}.path", str(folder), f"a checkpoint of a {type(model).__name__}", f"It lacks {lost[0]!r}, for one.")
