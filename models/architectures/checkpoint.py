"""Load and save Hugging Face folders; safetensors only, no code is run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from conf.errors import UserError
from models.architectures.shapes import AUTO_CLASSES, build
from models.base.files import weight_files
from models.base.interface import Interface

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def check_folder(folder: Path, key: str) -> None:
    """Refuse a folder that cannot be a model: missing, without configuration, with pickled weights only, or with a broken file.

    Raises:
        UserError: Naming `key`, the value found and the remedy.
    """
    if not folder.is_dir():
        raise UserError.about(key, str(folder), "an existing Hugging Face folder", "Check the path.")
    if not (folder / "config.json").is_file():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise UserError.about(key, str(folder), "a folder with config.json", f"Found there: {found}. Save the model with save_pretrained.")
    try:
        json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise UserError.about(key, str(folder / "config.json"), "valid JSON", f"It does not parse: {error}.") from error
    files = weight_files(folder)
    if not files:
        pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern))
        if pickles:
            raise UserError.about(
                key,
                str(folder),
                "weights as safetensors",
                f"It holds only pickled weights ({', '.join(pickles)}), which can run code. Convert it where you trust it: "
                "load it with transformers and call save_pretrained(folder), which writes safetensors.",
            )
        raise UserError.about(key, str(folder), "a folder with *.safetensors", "It holds no weights. Save the model with save_pretrained.")
    _check_headers(files, key)


def _check_headers(files: Iterable[Path], key: str) -> None:
    from safetensors import SafetensorError, safe_open

    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                file.keys()
        except (SafetensorError, OSError) as error:
            raise UserError.about(
                key, str(path), "a whole safetensors file", f"This one is damaged ({error}). Fetch or save the checkpoint again."
            ) from error


def load_model(folder: Path, workload: str, *, key: str = "teacher.path", dtype: torch.dtype | None = torch.float32) -> nn.Module:
    """Load a model from a checked folder; `dtype=None` keeps the checkpoint's own.

    Raises:
        UserError: The folder is no such model (see `check_folder`), or serves another workload.
    """
    import transformers

    check_folder(folder, key)
    transformers.utils.logging.disable_progress_bar()  # one bar for each of our models is of no use
    auto = getattr(transformers, AUTO_CLASSES[workload])
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        model, info = auto.from_pretrained(
            folder,
            config=config,
            dtype=dtype or "auto",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        first = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise UserError.about(key, str(folder), f"a model that {AUTO_CLASSES[workload]} loads", f"transformers said: {first}") from error
    model.config.use_cache = False  # nothing here generates, and filling a cache costs time at every forward pass
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError.about(
            key, str(folder), f"a checkpoint trained for {workload}", f"It lacks weights that the model needs, such as {missing[0]!r}."
        )
    return model


def read_config(folder: Path, key: str = "teacher.path") -> Any:
    """The configuration of a checked folder.

    Raises:
        UserError: transformers does not know it.
    """
    import transformers

    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (ValueError, KeyError, OSError) as error:
        first = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise UserError.about(key, str(folder), "a model that transformers knows", f"transformers said: {first}") from error


def skeleton(folder: Path, workload: str) -> nn.Module:
    """The model of a checked folder without its weights, on the meta device: for shapes and counts.

    Raises:
        UserError: transformers does not know such a model, or not for this workload.
    """
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            return build(config, workload)
    except (ValueError, KeyError, OSError) as error:
        first = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise UserError.about(
            "teacher.path", str(folder), f"a model that {AUTO_CLASSES[workload]} loads", f"transformers said: {first}"
        ) from error


def save_model(model: nn.Module, folder: Path, tokenizer_folder: Path | None) -> None:
    """Write a Hugging Face folder that loads in plain transformers: configuration, safetensors, tokenizer."""
    import shutil

    import transformers

    transformers.utils.logging.disable_progress_bar()
    saved = cast(Any, model)
    settings = [saved.config, saved.generation_config] if saved.can_generate() else []
    for each in settings:
        each.use_cache = True  # for users who generate; training never asks for the cache
    saved.save_pretrained(folder)
    for each in settings:
        each.use_cache = False
    if tokenizer_folder is not None:
        for path in tokenizer_folder.iterdir():
            shutil.copy(path, folder / path.name)


def check_interface(model: nn.Module, interface: Interface, folder: Path, key: str = "teacher.path") -> None:
    """Refuse a teacher whose outputs cannot be compared with the students'.

    A vocabulary may be padded beyond the tokenizer's ids (the surplus is cut), never smaller.

    Raises:
        UserError: Vocabulary or classes differ from the data's.
    """
    config = cast(Any, model).config
    if interface.workload != "causal-lm" and config.num_labels != interface.classes:
        raise UserError.about(
            key,
            f"{folder} with {config.num_labels} classes",
            f"{interface.classes} classes, as the data have",
            "Set data.classes, or use another.",
        )
    if interface.vocabulary is not None and config.vocab_size < interface.vocabulary:
        raise UserError.about(
            key,
            f"{folder} with {config.vocab_size} ids",
            f"at least the {interface.vocabulary} ids of the tokenizer",
            "Teacher and student must share one vocabulary: set tokenizer.kind=teacher.",
        )
