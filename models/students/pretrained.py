"""Load an existing model to train it on, with a head for the classes of the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from conf.errors import UserError
from models.architectures.checkpoint import UNREADABLE, check_folder, load_model, read_config, unreadable
from models.architectures.configs import without_dropout
from models.architectures.shapes import AUTO_CLASSES
from models.base.files import weight_files
from models.base.interface import Interface
from models.data.classes import classes_in, match_classes

POOLERS = ("pooler", "pre_classifier")  # layers between body and head, which a body that was saved alone may lack


class Pretrained(NamedTuple):
    """A model with trained weights, and how it came by its head."""

    model: nn.Module
    head: str


def missing_head(model: nn.Module, folder: Path) -> str | None:
    """The name of a weight of the head that a checkpoint's files lack; None: they have the head.

    Args:
        model: Of the checkpoint's configuration, with a head; may be on the meta device.
        folder: Of the checkpoint.
    """
    from safetensors import safe_open

    names = set[str]()
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            names.update(file.keys())
    base = f"{cast(Any, model).base_model_prefix}."
    return next((name for name, _ in model.named_parameters() if not name.startswith(base) and name not in names), None)


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
    if not names:
        model = load_model(folder, interface.workload)
        without_dropout(cast(Any, model).config)
        _no_dropout(model)
        return Pretrained(model, "the checkpoint's")
    check_folder(folder, "teacher.path")
    config = read_config(folder)
    without_dropout(config)
    places = _places(names, theirs or classes_in(folder))
    model, missing = _load(folder, interface.workload, config, seed)
    config = cast(Any, model).config
    if places is not None and not missing:
        _select_rows(model, config.num_labels, places)
        head = "the checkpoint's"
    else:
        config.num_labels = len(names)
        model, missing = _load(folder, interface.workload, config, seed)
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


def _load(folder: Path, workload: str, config: Any, seed: int) -> tuple[nn.Module, list[str]]:
    """A model of `config` with the checkpoint's weights, and the names of its head's that the checkpoint lacks or has in another shape.

    Raises:
        UserError: It cannot be loaded, or lacks weights of its body.
    """
    import transformers

    auto = getattr(transformers, AUTO_CLASSES[workload])
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
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
    except UNREADABLE as error:
        raise unreadable("teacher.path", folder, workload, error) from error
    base = f"{model.base_model_prefix}."
    other = [*info["missing_keys"], *(key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"])]
    body = sorted(name for name in other if name.startswith(base) and not any(part in POOLERS for part in name.split(".")))
    if body:
        allowed = f"a model whose weights {AUTO_CLASSES[workload]} finds"
        raise UserError.about("teacher.path", str(folder), allowed, f"It lacks weights beside the head, such as {body[0]!r}.")
    return model, [name for name in other if not name.startswith(base)]


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars, and no report of a head that is to be new."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _select_rows(model: nn.Module, classes: int, places: Sequence[int]) -> None:
    """Put the rows of the last layer in the order of the data's classes."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == classes]
    layer, rows = layers[-1], torch.tensor(places)
    layer.weight = nn.Parameter(layer.weight.detach()[rows].clone())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[rows].clone())
    layer.out_features = len(places)


def _no_dropout(model: nn.Module) -> None:
    """For models that were built before their configuration's rates were set to 0."""
    for module in cast(Any, model).modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        rate = getattr(module, "attention_dropout", None)
        if isinstance(rate, float):
            setattr(module, "attention_dropout", 0.0)  # noqa: B010
