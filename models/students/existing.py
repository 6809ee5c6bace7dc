"""An existing checkpoint as student: its weights are the first ones.

The data's classes and special ids are set in its configuration; a head for other classes, or for another task, is made anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from conf.errors import UserError
from models.architectures.checkpoint import check_finite, read_config
from models.architectures.composite import language_config
from models.architectures.configs import LENGTHS, OFFSET_POSITIONS, fit_interface, without_dropout
from models.architectures.folder_checks import check_folder
from models.base.interface import Interface
from models.embeddings.pooling import Pooling, pooling_of, set_pooling, size_of
from models.students.new_head import load_with_head


def existing_config(folder: Path, interface: Interface, key: str, teacher: Any | None = None) -> Any:
    """The configuration of a checkpoint, fitted to the data; that of a sentence encoder also to the teacher's embeddings.

    Raises:
        UserError: The folder is no model, has fewer ids or positions than the data need, or reads other images.
    """
    check_folder(folder, f"{key}.path")
    config = read_config(folder, f"{key}.path", interface.workload)
    language = language_config(config)
    ids = getattr(language, "vocab_size", None) or 0
    if interface.vocabulary is not None and ids < interface.vocabulary:
        remedy = "A student answers in the ids of its teacher: choose one with the same tokenizer."
        raise UserError.about(f"{key}.path", f"{folder} with {ids} ids", f"at least the {interface.vocabulary} here", remedy)
    have = next((limit for name in LENGTHS if (limit := getattr(language, name, None)) is not None), None)
    if have is not None and config.model_type in OFFSET_POSITIONS:
        have -= (config.pad_token_id or 0) + 1
    if interface.image_shape is None and have is not None and have < interface.sequence_length:
        remedy = f"Set data.sequence_length to at most {have}, or choose another."
        raise UserError.about(
            f"{key}.path", f"{folder} with {have} positions", f"at least {interface.sequence_length}, as data.sequence_length", remedy
        )
    if interface.image_shape is not None:
        _check_image(config, interface.image_shape, folder, key)
    vocabulary = getattr(language, "vocab_size", None)
    fit_interface(config, interface, f"{key}.path")
    if vocabulary is not None:
        language.vocab_size = vocabulary  # rows beyond the tokenizer's stay, and are cut from the answers
    without_dropout(config)
    if interface.workload == "embedding" and teacher is not None and size_of(config) != size_of(teacher):
        set_pooling(config, Pooling(pooling_of(config).mode, size_of(teacher), pooling_of(teacher).normalize))
    return config


def _check_image(config: Any, shape: tuple[int, int, int], folder: Path, key: str) -> None:
    channels, side, _ = shape
    theirs = getattr(config, "num_channels", channels), getattr(config, "image_size", side)
    if theirs != (channels, side):
        given = f"{folder} for {theirs[0]} channels and {theirs[1]} pixels"
        raise UserError.about(f"{key}.path", given, f"{channels} channels and {side} pixels, as the data have", "Choose another.")


def load_existing(folder: Path, interface: Interface, seed: int, key: str, teacher: Any | None = None) -> nn.Module:
    """Load a checkpoint as student, in fp32; weights of its head that are missing or do not fit are a function of the seed.

    A sentence encoder keeps its own pooling, and its own projection where that gives as many numbers as the teacher of this configuration.

    Raises:
        UserError: As `existing_config`, or weights beside the head are missing.
    """
    config = existing_config(folder, interface, key, teacher)
    check_finite(folder, key=f"{key}.path")
    return load_with_head(folder, interface.workload, config, seed, f"{key}.path")[0]
