"""Write short forms of a ladder out: `teacher: models/big`, `stages: [40m, 12m]`.

A short form stands for the settings that a longer YAML would hold; overrides then apply to those. No file of data or weights is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from conf.errors import UserError
from conf.schema.data import CommonData, Data
from conf.schema.stage.student import FEWEST, SIZE

# Of a stage that says nothing of its training.
DEFAULT_TRAINING = {"steps": 1000, "batch_size": 32, "learning_rate": 1e-3}
SAVED_DATASET = ("dataset_dict.json", "state.json")
NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def written_out(plain: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The top-level settings that a short form gives, written out; empty where there is none.

    Args:
        plain: The ladder as YAML gives it; interpolations may still stand in it, and are left alone.
        base: Folder that relative paths count from.

    Raises:
        UserError: An item of `stages` is no stage.
    """
    changed: dict[str, Any] = {}
    teacher, data, stages = (plain.get(key) for key in ("teacher", "data", "stages"))
    if _is_text(teacher):
        changed["teacher"] = {"source": "checkpoint", "path": teacher}
        if "tokenizer" not in plain and plain.get("workload") != "image-classification":
            changed["tokenizer"] = {"kind": "teacher"}
    if isinstance(data, str | list) and data and all(map(_is_text, data if isinstance(data, list) else [data])):
        changed["data"] = _data(data, base)
    if isinstance(stages, list):
        defaults = plain.get("defaults")
        trained = isinstance(defaults, Mapping) and defaults.get("training") is not None
        full = [_stage(item, index, trained) for index, item in enumerate(stages)]
        if any(new is not old for new, old in zip(full, stages, strict=True)):
            changed["stages"] = full
    return changed


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "${" not in value


def _data(given: str | list[str], base: Path) -> dict[str, Any]:
    """A shipped source by its name, a folder that `datasets` has saved, or files."""
    if isinstance(given, str):
        if given in nameless_sources():
            return {"source": given}
        folder = base / os.path.expanduser(given)
        if any((folder / marker).is_file() for marker in SAVED_DATASET):
            return {"source": "dataset", "name": given}
    return {"source": "files", "paths": [given] if isinstance(given, str) else list(given)}


def nameless_sources() -> dict[str, type[CommonData]]:
    """The sources that need nothing but their name, with their settings."""
    union, *_ = get_args(Data)
    models = [model for model in get_args(union) if not {"paths", "name"} & set(model.model_fields)]
    return {model.model_fields["source"].default: model for model in models}


def _stage(item: Any, index: int, trained: bool) -> Any:
    """A stage by its number of parameters or its checkpoint; any stage without a training gets the default one."""
    full = item
    if isinstance(item, float) and item.is_integer():  # YAML reads 4.0e+6 so
        item = int(item)
    if isinstance(item, int | float) and not isinstance(item, bool):
        if item < FEWEST or isinstance(item, float):
            allowed = f"a whole number of parameters, at least {FEWEST}, or a text such as 40m"
            raise UserError.about(f"stages[{index}]", item, allowed, "Write a number and k, m or b for thousands, millions or billions.")
        full = {"name": str(item), "student": {"parameters": item}}
    elif isinstance(item, str) and _is_text(item):
        full = _named_stage(item.strip(), index)
    if isinstance(full, dict) and "training" not in full and not trained:
        full = {**full, "training": dict(DEFAULT_TRAINING)}
    return full


def _named_stage(text: str, index: int) -> dict[str, Any]:
    if SIZE.fullmatch(text):
        return {"name": text.lower().replace(".", "-"), "student": {"parameters": text.lower()}}
    if "/" not in text:
        allowed = "a number of parameters such as 40m, the path of a checkpoint such as models/small, or a mapping with name and student"
        raise UserError.about(f"stages[{index}]", text, allowed, "Write a number and k, m or b, or a path with a slash.")
    name = NOT_IN_A_NAME.sub("-", text.rstrip("/").rpartition("/")[2]).strip("-_")[:64]
    return {"name": name or f"stage-{index + 1}", "student": {"source": "checkpoint", "path": text}}
