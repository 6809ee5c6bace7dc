"""Checks of a model folder's files and configuration, before anything is built."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from conf.errors import UserError, foreign_errors
from models.base.files import read_json, weight_files

WEIGHTS = "model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
HEADS = ("num_attention_heads", "n_head", "n_heads", "encoder_attention_heads")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
COUNTS = (
    *HIDDEN,
    *HEADS,
    *LAYERS,
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "n_inner",
    "hidden_dim",
    "ffn_dim",
    "embedding_size",
    "vocab_size",
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "sliding_window",
    "image_size",
    "patch_size",
    "num_channels",
    "num_labels",
    "hidden_sizes",
    "depths",
)
MOST = 1000  # layers
MOST_WEIGHTS = 10**13  # of matrices between features of all layers
SHARES = ("dropout", "dropout_prob", "pdrop", "dropout_rate", "drop_path_rate")  # ends of names
OWN_HEADS = ("head_dim", "d_kv", "qk_head_dim", "qk_nope_head_dim", "v_head_dim", "attention_head_size", "kv_channels")
WRAPPERS = {  # part of a weight's name -> what puts it there
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module.": "checkpoint_wrapper",
    "module.": "DistributedDataParallel",
}


def check_folder(folder: Path, key: str) -> None:
    """Refuse a folder that cannot be a model: missing, with a senseless configuration, with pickled weights only, or a broken file.

    Raises:
        UserError: Naming `key`, the value found and the remedy.
    """
    if not os.path.isdir(folder):  # unlike Path's, False for a name that is too long
        raise UserError.about(key, str(folder), "an existing Hugging Face folder", "Check the path.")
    if not (folder / "config.json").is_file():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise UserError.about(key, str(folder), "a folder with config.json", f"Found there: {found}. Save the model with save_pretrained.")
    check_config(folder / "config.json", key)
    check_shards(folder, key)
    if (folder / "adapter_config.json").exists():  # transformers would go to the base model that it names
        remedy = "Merge it with peft's merge_and_unload, and save the model again."
        raise UserError.about(key, f"{folder} with adapter_config.json", "a whole model, without an adapter", remedy)
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
    index = folder / f"{WEIGHTS}.index.json"
    if not (folder / WEIGHTS).is_file() and not index.is_file():
        found = f"{folder} with {', '.join(path.name for path in files[:4])}"
        allowed = f"a folder with {WEIGHTS}, or with {index.name} beside its parts"
        raise UserError.about(key, found, allowed, "Fetch the missing file, or save the model with save_pretrained.")
    held = _check_headers(files, key)
    if not (folder / WEIGHTS).is_file():
        _check_places(index, held, key)


def _check_places(index: Path, held: Mapping[str, set[str]], key: str) -> None:
    """Refuse an index that looks for a tensor in a file that another one holds.

    Args:
        index: The index, which is read.
        held: Name of each file -> tensors in it.
        key: Dotted key to blame.
    """
    for name, file in read_json(index)["weight_map"].items():
        other = next((each for each, names in held.items() if name in names), file)
        if name not in held.get(file, ()) and other != file:
            found = f"{index} that looks for {name} in {file}"
            raise UserError.about(key, found, f"an index of its files: it is in {other}", "Save or fetch the model again.")


def _check_headers(files: Iterable[Path], key: str) -> dict[str, set[str]]:
    """Check the names in each file; returns them by the file's name."""
    from safetensors import safe_open

    held: dict[str, set[str]] = {}
    for path in files:
        remedy = "This one is damaged. Fetch or save the checkpoint again."
        with foreign_errors(key, str(path), "a whole safetensors file", remedy, "safetensors"), safe_open(path, framework="pt") as file:
            names = list(file.keys())
        check_names(names, path, key)
        held[path.name] = set(names)
    return held


def check_config(file: Path, key: str) -> None:
    """Refuse a `config.json` that is no JSON object, or that holds a value with which no model can be built.

    Raises:
        UserError: Naming the setting, its value and the allowed ones.
    """
    try:
        config = read_json(file)
    except ValueError as error:
        raise UserError.about(key, str(file), "valid JSON", f"It does not parse: {error}.") from error
    if not isinstance(config, dict):
        raise UserError.about(key, str(file), "a JSON object", "Save the model with save_pretrained.")
    for name, value, allowed in faults(config):
        raise UserError.about(key, f"{file} with {name} {value!r}", allowed, "Mend the configuration, or save the model again.")


def faults(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object, str]]:
    """Each setting of a configuration that makes no sense: its name, its value, the allowed ones."""
    for name, value in config.items():
        if name in COUNTS:
            most = MOST if name in LAYERS else 2**31
            for each in value if isinstance(value, list) else [value]:
                if each is not None and (isinstance(each, bool) or not isinstance(each, int) or not 1 <= each <= most):
                    yield prefix + name, value, f"a whole number from 1 to {most:,}"
        elif isinstance(value, float) and not math.isfinite(value):
            yield prefix + name, value, "a finite number"
        elif name.endswith(SHARES) and isinstance(value, int | float) and not 0 <= value <= 1:
            yield prefix + name, value, "a share from 0 to 1"
        elif name.endswith("norm_eps") and isinstance(value, int | float) and value < 0:
            yield prefix + name, value, "0 or more"
        elif isinstance(value, Mapping) and name.endswith("_config"):
            yield from faults(value, f"{prefix}{name}.")
    hidden, layers = _first(config, HIDDEN), _first(config, LAYERS)
    if hidden and layers and hidden[1] <= 2**31 and layers[1] <= MOST and hidden[1] ** 2 * layers[1] > MOST_WEIGHTS:
        yield prefix + hidden[0], hidden[1], f"at most {math.isqrt(MOST_WEIGHTS // layers[1]):,}, with {layers[1]} layers"
    yield from _heads(config, prefix)
    yield from _ids(config, prefix)
    yield from _classes(config, prefix)


def _heads(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object, str]]:
    hidden, heads = _first(config, HIDDEN), _first(config, HEADS)
    if heads and hidden and not any(config.get(name) for name in OWN_HEADS) and hidden[1] % heads[1]:
        yield prefix + heads[0], heads[1], f"a divisor of {hidden[0]}, which is {hidden[1]}"
    groups = _first(config, ("num_key_value_heads",))
    if heads and groups and heads[1] % groups[1]:
        yield prefix + groups[0], groups[1], f"a divisor of {heads[0]}, which is {heads[1]}"


def _ids(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object, str]]:
    pad, vocabulary = config.get("pad_token_id"), config.get("vocab_size")
    if (
        pad is not None
        and isinstance(vocabulary, int)
        and (not isinstance(pad, int) or isinstance(pad, bool) or not -1 <= pad < vocabulary)
    ):
        yield f"{prefix}pad_token_id", pad, f"none, or an id below vocab_size, which is {vocabulary}"


def _classes(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object, str]]:
    names, numbers = config.get("id2label"), config.get("label2id")
    if names is None:
        if isinstance(numbers, Mapping) and len(numbers) != (config.get("num_labels") or 2):
            yield f"{prefix}label2id", numbers, "id2label beside it, by which transformers counts the classes"
        return
    whole = isinstance(names, Mapping) and sorted(map(str, names), key=lambda text: (len(text), text)) == [
        str(i) for i in range(len(names))
    ]
    if not whole:
        yield f"{prefix}id2label", names, "an object with the names of the classes 0, 1, ..."


def _first(config: Mapping[str, Any], names: Iterable[str]) -> tuple[str, int] | None:
    """The first of these settings that is a whole number above 0."""
    return next(((name, config[name]) for name in names if isinstance(config.get(name), int) and config[name] > 0), None)


def check_shards(folder: Path, key: str) -> None:
    """Refuse an index that names files outside its folder, and files that are links out of it.

    Links of the hub's cache, from `snapshots` to `blobs` of the same model, are as it makes them.

    Raises:
        UserError: Naming the file.
    """
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            places = read_json(index)["weight_map"]
            names = sorted({str(name) for name in places.values()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError.about(key, str(index), "an index with a weight_map", "Save or fetch the model again.") from error
        for name in names:
            if not re.fullmatch(r"[^/\\]+\.safetensors", name):
                allowed = "names of safetensors files in the same folder"
                raise UserError.about(key, f"{index} that points to {name}", allowed, "Save or fetch the model again.")
            if not (folder / name).is_file():
                raise UserError.about(key, f"{index} that points to {name}", "files that are there", "Fetch the missing file.")
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not path.is_dir() and not _stays(path, folder):
            raise UserError.about(
                key,
                f"{path}, a link to {path.resolve()}",
                "files that lie in the folder itself",
                "Copy the file there in place of the link.",
            )


def _stays(link: Path, folder: Path) -> bool:
    target, home = link.resolve(), folder.resolve()
    cached = home.parent.name == "snapshots" and target.is_relative_to(home.parent.parent / "blobs")
    return target.is_relative_to(home) or cached


def check_names(names: Iterable[str], path: Path, key: str) -> None:
    """Refuse weights whose names hold that of a wrapper, so that no model would find them.

    Raises:
        UserError: Naming the wrapper and how to save without it.
    """
    every = list(names)
    for part, wrapper in WRAPPERS.items():
        if part.startswith("_"):
            found = next((name for name in every if part in name), None)
        else:  # a word that a model may use itself
            found = every[0] if every and all(name.startswith(part) for name in every) else None
        if found is not None:
            inner = f"model.{part}save_pretrained(folder)" if found.startswith(part) else "the module inside it, before it is wrapped"
            remedy = f"Save the model inside the wrapper: {inner}."
            raise UserError.about(key, f"{path}, whose weights are named {found}", f"weights saved without {wrapper}", remedy)
