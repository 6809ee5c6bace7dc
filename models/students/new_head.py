"""Load a checkpoint's weights, with a new head where it has none that fits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from conf.errors import UserError
from conf.schema.workloads import makes_embeddings
from models.architectures.checkpoint import from_folder
from models.base.files import weight_files

POOLERS = ("pooler", "pre_classifier")  # layers between body and head, which a body that was saved alone may lack


def missing_head(model: nn.Module, folder: Path) -> str | None:
    """The name of a weight of the head that a checkpoint's files lack; None: they have the head.

    Args:
        model: Of the checkpoint's configuration, with a head; may be on the meta device.
        folder: Of the checkpoint.

    Raises:
        UserError: They have it inside another module.
    """
    from safetensors import safe_open

    names = set[str]()
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            names.update(file.keys())
    base = f"{cast(Any, model).base_model_prefix}."
    lacks = next((name for name, _ in model.named_parameters() if not name.startswith(base) and name not in names), None)
    inside = next((name for name in sorted(names) if lacks is not None and name.endswith(f".{lacks}")), None)
    if inside is not None and lacks is not None and all(name.startswith(inside.removesuffix(lacks)) for name in names):
        remedy = "Save the inner model without its wrapper."
        raise UserError.about("teacher.path", f"{folder}, which has {inside}", f"a checkpoint with {lacks} in its place", remedy)
    return lacks


def load_with_head(folder: Path, workload: str, config: Any, seed: int, key: str) -> tuple[nn.Module, list[str]]:
    """Load a model of a configuration in fp32; weights of a classifier's head that are missing or do not fit depend on the seed alone.

    Args:
        folder: A checked folder.
        workload: The ladder's; a language model gets no new weights.
        config: Of the model, with the number of its classes.
        seed: Of the new weights.
        key: Dotted key of the folder, for messages.

    Returns:
        The model, and the names of its new weights.

    Raises:
        UserError: It cannot be loaded, or lacks weights of its body.
    """
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, info = from_folder(folder, workload, config, key, dtype=torch.float32, ignore_mismatched_sizes=True)
    new = [*info["missing_keys"], *(each if isinstance(each, str) else each[0] for each in info["mismatched_keys"])]
    base = "" if makes_embeddings(workload) else f"{model.base_model_prefix}."  # whose weights are named as the body names them
    body = sorted(
        name for name in new if workload == "causal-lm" or (name.startswith(base) and not any(part in POOLERS for part in name.split(".")))
    )
    if body:
        raise UserError.about(key, str(folder), f"a checkpoint of a {type(model).__name__}", f"It lacks {body[0]!r}, for one.")
    return model, [name for name in new if not name.startswith(base)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars, and without the report of weights that are new."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
