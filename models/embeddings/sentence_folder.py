"""Folders of sentence-transformers: read and write their modules.

`modules.json` lists the steps from a text to its embedding: the transformer in the folder itself, pooling, perhaps a dense layer, perhaps
normalisation, each with a folder of its own. The older of the two spellings is written, which all versions of the library read
(https://sbert.net/docs/sentence_transformer/usage/custom_models.html, version 6.2).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.errors import UserError
from models.base.files import read_json, weights_sha256
from models.embeddings.pooling import ATTRIBUTE, MODES, Pooling

if TYPE_CHECKING:
    from torch import nn

MODULES, SETTINGS, DESCRIPTION = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
PLACE = re.compile(r"[0-9]+_[A-Za-z]+")  # of a module beside the transformer
WEIGHTS = "model.safetensors"
# Switches of an older pooling configuration -> the mode.
SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}


def is_sentence_folder(folder: Path) -> bool:
    """Whether a folder holds a model of sentence-transformers."""
    return (folder / MODULES).is_file()


def read_pooling(folder: Path, key: str = "teacher.path") -> Pooling:
    """The pooling of a model folder; the mean, normalised, where the folder is a plain encoder without `modules.json`.

    Raises:
        UserError: It has modules, or settings of them, that are not known here.
    """
    if not is_sentence_folder(folder):
        return Pooling()
    found: dict[str, Any] = {"normalize": False}
    for place, kind in _modules(folder, key)[1:]:
        if kind == "Pooling" and not found["normalize"] and "dense" not in found:
            found |= _pooling(folder / place / "config.json", key)
        elif kind == "Dense" and "dense" not in found and not found["normalize"]:
            found |= _dense(folder / place / "config.json", key)
        elif kind == "Normalize":
            found["normalize"] = True
        else:
            allowed = "a Transformer, Pooling, at most one Dense and Normalize, in this order"
            raise UserError.about(key, f"{folder / MODULES} with {kind}", allowed, "Use another encoder.")
    if "mode" not in found:
        raise UserError.about(key, f"{folder / MODULES} without Pooling", "a folder with a module of pooling", "Use another encoder.")
    return Pooling(**found)


def model_sha256(folder: Path) -> str:
    """Hash of a model folder's weights, and of a sentence encoder's pooling, on which its embeddings depend as much."""
    weights = weights_sha256(folder)
    if not is_sentence_folder(folder):
        return weights
    return hashlib.sha256(f"{weights} {json.dumps(asdict(read_pooling(folder)))}".encode()).hexdigest()


def dense_file(folder: Path) -> Path | None:
    """The file of the projection's weights; None: there is none."""
    if not is_sentence_folder(folder):
        return None
    return next((folder / place / WEIGHTS for place, kind in _modules(folder, "teacher.path") if kind == "Dense"), None)


def read_dense(folder: Path, key: str = "teacher.path") -> dict[str, Any]:
    """Weights of the projection, by their names in a linear layer.

    Raises:
        UserError: They are missing, or no safetensors.
    """
    from safetensors.torch import load_file

    file = dense_file(folder)
    if file is None or not file.is_file():
        allowed = f"a dense layer with its weights in {WEIGHTS}"
        raise UserError.about(key, f"{folder} without {file or 'a dense layer'}", allowed, "Save the model with sentence-transformers.")
    return {name.removeprefix("linear."): tensor.float() for name, tensor in load_file(file).items()}


def _modules(folder: Path, key: str) -> list[tuple[str, str]]:
    """Folder and class of each module, the transformer first."""
    try:
        listed = read_json(folder / MODULES)
        found = [(str(each["path"]), str(each["type"]).rpartition(".")[2]) for each in listed]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError.about(key, str(folder / MODULES), "a list of modules with path and type", "Save the model again.") from error
    if not found or found[0] != ("", "Transformer") or any(not PLACE.fullmatch(place) for place, _ in found[1:]):
        shown = ", ".join(f"{kind} in {place!r}" for place, kind in found) or "nothing"
        allowed = "a Transformer in the folder itself, and further modules in folders such as 1_Pooling"
        raise UserError.about(key, f"{folder / MODULES} with {shown}", allowed, "Use another encoder.")
    return found


def _pooling(file: Path, key: str) -> dict[str, Any]:
    settings = _settings(file, key)
    mode = settings.get("pooling_mode") or [name for switch, name in SWITCHES.items() if settings.get(switch)]
    modes = [mode] if isinstance(mode, str) else list(mode)
    if len(modes) != 1 or modes[0] not in MODES:
        shown = " and ".join(map(str, modes)) or "no mode"
        raise UserError.about(key, f"{file} with {shown}", f"one mode of pooling of {', '.join(MODES)}", "Use another encoder.")
    return {"mode": modes[0]}


def _dense(file: Path, key: str) -> dict[str, Any]:
    settings = _settings(file, key)
    activation = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2].lower()
    if activation not in ("identity", "tanh") or not isinstance(settings.get("out_features"), int):
        shown = f"{file} with activation {activation} and out_features {settings.get('out_features')}"
        raise UserError.about(key, shown, "a dense layer with Identity or Tanh, and out_features", "Use another encoder.")
    return {"size": settings["out_features"], "dense": True, "bias": bool(settings.get("bias", True)), "activation": activation}


def _settings(file: Path, key: str) -> dict[str, Any]:
    try:
        settings = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError.about(key, str(file), "a readable configuration of a module", "Save or fetch the model again.") from error
    return settings if isinstance(settings, dict) else {}


def write_encoder(body: Any, projection: nn.Linear | None, pooling: Pooling, folder: Path) -> None:
    """Write body, pooling, projection and normalisation into a folder."""
    from safetensors.torch import save_file

    width = int(body.config.hidden_size)
    noted = body.config.__dict__.pop(ATTRIBUTE, None)
    try:
        body.save_pretrained(folder)
    finally:
        if noted is not None:
            setattr(body.config, ATTRIBUTE, noted)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    switches = {switch: mode == pooling.mode for switch, mode in SWITCHES.items()}
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **switches})
    if projection is not None:
        place = f"{len(modules)}_Dense"
        modules.append((place, "Dense"))
        name = "torch.nn.modules.linear.Identity" if pooling.activation == "identity" else "torch.nn.modules.activation.Tanh"
        described = {
            "in_features": width,
            "out_features": projection.out_features,
            "bias": projection.bias is not None,
            "activation_function": name,
        }
        _write(folder / place / "config.json", described)
        save_file(
            {f"linear.{name}": tensor.detach().cpu().contiguous() for name, tensor in projection.state_dict().items()},
            folder / place / WEIGHTS,
        )
    if pooling.normalize:
        place = f"{len(modules)}_Normalize"
        modules.append((place, "Normalize"))  # which has no files
    named = "sentence_transformers.models"
    listed = [{"idx": n, "name": str(n), "path": place, "type": f"{named}.{kind}"} for n, (place, kind) in enumerate(modules)]
    _write(folder / MODULES, listed)
    _write(folder / SETTINGS, {"max_seq_length": None, "do_lower_case": False})
    _write(folder / DESCRIPTION, {"similarity_fn_name": "cosine"})


def limit_length(folder: Path, length: int) -> None:
    """Let sentence-transformers cut texts as they were cut in training."""
    if is_sentence_folder(folder):
        _write(folder / SETTINGS, {"max_seq_length": length, "do_lower_case": False})


def copy_modules(source: Path, target: Path) -> None:
    """Copy the modules of a folder of sentence-transformers beside the transformer, and their list; nothing from any other folder."""
    if not is_sentence_folder(source):
        return
    for name in (MODULES, SETTINGS, DESCRIPTION):
        if (source / name).is_file():
            shutil.copy(source / name, target / name)
    for place, _ in _modules(source, "teacher.path")[1:]:
        for name in ("config.json", WEIGHTS):
            if (source / place / name).is_file():
                (target / place).mkdir(exist_ok=True)
                shutil.copy(source / place / name, target / place / name)


def module_files(folder: Path) -> list[Path]:
    """The files that make a folder one of sentence-transformers, beside those of the transformer; none for any other folder."""
    if not is_sentence_folder(folder):
        return []
    places = [folder / place for place, _ in _modules(folder, "teacher.path")[1:]]
    files = [folder / name for name in (MODULES, SETTINGS, DESCRIPTION)]
    return [path for path in (*files, *(place / name for place in places for name in ("config.json", WEIGHTS))) if path.is_file()]


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
