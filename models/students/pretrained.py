"""Load an existing model to train it on, with a head for the classes of the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from conf.errors import UserError
from models.architectures.checkpoint import load_model, read_config
from models.architectures.configs import without_dropout
from models.architectures.folder_checks import check_folder
from models.base.interface import Interface
from models.data.classes import classes_in, match_classes
from models.students.new_head import load_with_head

KEY = "teacher.path"


class Pretrained(NamedTuple):
    """A model with trained weights, and how it came by its head."""

    model: nn.Module
    head: str


def load_to_train(folder: Path, interface: Interface, names: Sequence[str], seed: int, theirs: Sequence[str] | None = None) -> Pretrained:
    """Load a model with all its weights, without dropout, ready to be trained on the data.

    A classifier keeps its head where its classes match the data's (see `match_classes`), in their order; else it gets a new one.

    Args:
        folder: A checkpoint of the workload, or of a body that can bear a head for it.
        interface: Inputs and outputs of the data.
        names: The data's classes; empty for causal-lm.
        seed: Of a new head.
        theirs: Names of the head's classes; None: those of the checkpoint's configuration.

    Raises:
        UserError: The folder is no such model, or lacks weights beside the head.
    """
    check_folder(folder, KEY)
    config = read_config(folder)
    without_dropout(config)
    if not names:
        return Pretrained(load_model(folder, interface.workload, config=config), "the checkpoint's")
    places = _places(names, theirs or classes_in(folder))
    model, missing = load_with_head(folder, interface.workload, config, seed, KEY)
    config = cast(Any, model).config
    if places is not None and not missing:
        _select_rows(model, config.num_labels, places)
        head = "the checkpoint's"
    else:
        config.num_labels = len(names)
        model, missing = load_with_head(folder, interface.workload, config, seed, KEY)
        head = f"new, for {len(names)} classes"
    config = cast(Any, model).config
    config.num_labels, config.use_cache, config.problem_type = len(names), False, None
    if hasattr(model, "num_labels"):
        cast(Any, model).num_labels = len(names)
    if hasattr(model, "score"):  # a decoder finds the last id of a padded text by it
        config.pad_token_id = interface.pad_id
    return Pretrained(model, head)


def _places(ours: Sequence[str], theirs: Sequence[str]) -> list[int] | None:
    try:
        return match_classes(ours, theirs)[1]
    except UserError:
        return None


def _select_rows(model: nn.Module, classes: int, places: Sequence[int]) -> None:
    """Put the rows of the last layer in the order of the data's classes."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == classes]
    layer, rows = layers[-1], torch.tensor(places)
    layer.weight = nn.Parameter(layer.weight.detach()[rows].clone())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[rows].clone())
    layer.out_features = len(places)
