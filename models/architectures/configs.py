"""Configurations of any architecture, fitted to the interface of the data."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from conf.errors import UserError, foreign_errors
from conf.schema.workloads import has_classes
from models.architectures.composite import has_vision, language_config, parts_of
from models.architectures.folder_checks import faults
from models.architectures.shapes import AUTO_CLASSES, build
from models.base.interface import Interface, Picture

# Keys of a config.json that the data, or Ladder itself, decide.
DECIDED = {
    *("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "num_labels", "id2label", "label2id", "problem_type", "use_cache"),
    *("architectures", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "quantization_config", "finetuning_task"),
}
# Position ids of these begin after the pad id.
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet")

MISSPELT = 0.85  # likeness of two names, as difflib counts it, from which on one is taken for the other
LENGTHS = ("max_position_embeddings", "max_seq_len")  # names of the longest sequence; the second of MPT


def positions_of(model: nn.Module) -> int | None:
    """The longest sequence that a model can read; None: its configuration sets no limit.

    A table of positions with a padding row (RoBERTa and its kin) begins behind that row.
    """
    config: Any = language_config(model.config)
    limits = [stated for name in LENGTHS if isinstance(stated := getattr(config, name, None), int) and stated > 0]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and module.padding_idx is not None:
            limits.append(module.num_embeddings - module.padding_idx - 1)
    return min(limits, default=None)


def fitted_config(given: Mapping[str, Any], interface: Interface, key: str) -> Any:
    """The configuration that `given` describes, with vocabulary, classes, image and special ids of the data.

    Dropout is 0 unless `given` sets it: with it, several micro-batches are not one batch.

    Args:
        given: As in a `config.json`, with `model_type`.
        interface: Inputs and outputs that the data need.
        key: Dotted key of `given` in the settings, for error messages.

    Raises:
        UserError: transformers knows no such configuration or setting, it needs code of its own, or it does not fit the data.
    """
    import transformers

    if "auto_map" in given:
        remedy = "Its code would have to be run, which Ladder never does: choose an architecture that transformers has."
        raise UserError.about(f"{key}.auto_map", given["auto_map"], "a configuration without code of its own", remedy)
    settings = {name: value for name, value in given.items() if name not in DECIDED | {"model_type"}}
    for name, near in ignored_settings(given).items():
        remedy = f"Did you mean {near!r}?" if near else "It would have no effect: leave it out."
        raise UserError.about(f"{key}.{name}", given[name], f"settings that {given['model_type']} has", remedy)
    for name, value, allowed in faults(settings):
        raise UserError.about(f"{key}.{name}", value, allowed, "Correct it.")
    if settings.get("num_attention_heads") and "num_key_value_heads" not in settings:
        settings["num_key_value_heads"] = settings["num_attention_heads"]
    with foreign_errors(f"{key}.model_type", given["model_type"], "a configuration that transformers knows"):
        config = transformers.AutoConfig.for_model(given["model_type"], **copy.deepcopy(settings))  # it writes into nested settings
    fit_interface(config, interface, key)
    _fit_positions(language_config(config), _language_settings(config, settings), interface, key)
    without_dropout(config, settings)
    return config


def ignored_settings(given: Mapping[str, Any]) -> dict[str, str | None]:
    """Settings of a `config.json` that change nothing, as transformers has none of that name, each with the name that it resembles.

    A configuration takes any name as an attribute. One has an effect if the configuration declares it, or differs without it in anything
    else: older names, such as `rope_theta`, are translated. Where no such configuration can be built, a misspelt name may be the reason:
    those that closely resemble another are listed.
    """
    kind = given["model_type"]
    settings = {name: value for name, value in given.items() if name not in DECIDED | {"model_type"}}
    plain = _built(kind, {})
    if plain is None:
        return {}
    known = sorted(name for name in {*plain.to_dict(), *type(plain).attribute_map} if not name.startswith("_"))
    unknown = [name for name in settings if name not in known and not name.startswith("_")]
    whole = _built(kind, settings) if unknown else None
    if unknown and whole is None:
        found = [name for name in unknown if difflib.get_close_matches(name, known, n=1, cutoff=MISSPELT)]
    else:
        found = [name for name in unknown if _alike(whole, _built(kind, _without(settings, name)), name)]
    return {name: next(iter(difflib.get_close_matches(name, known, n=1)), None) for name in found}


def without_ignored(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a `config.json` that have an effect: a published one holds names of other versions and programs."""
    ignored = ignored_settings(given)
    return {name: value for name, value in given.items() if name not in ignored}


def _built(kind: str, settings: Mapping[str, Any]) -> Any | None:
    """The configuration with these settings; None where transformers builds none: `fitted_config` refuses them with its message."""
    import transformers

    try:
        with foreign_errors("model_type", kind, "a configuration that transformers knows"):
            return transformers.AutoConfig.for_model(kind, **copy.deepcopy(dict(settings)))  # it writes into nested settings
    except UserError:
        return None


def _alike(whole: Any, without: Any | None, name: str) -> bool:
    """Whether two configurations differ in a name at most."""
    return without is not None and _without(whole.to_dict(), name) == _without(without.to_dict(), name)


def _without(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != name}


def patch_of(given: Mapping[str, Any]) -> int | None:
    """Side of the patches, in pixels, that have to divide an image: of a vision transformer, which would leave a margin unread.

    None for other architectures, for hierarchical ones, which pad or overlap their patches, and where transformers builds none.
    """
    config = _built(given["model_type"], {name: value for name, value in given.items() if name not in DECIDED | {"model_type"}})
    patch = getattr(config, "patch_size", None)
    return patch if isinstance(patch, int) and not hasattr(config, "depths") else None


def fit_interface(config: Any, interface: Interface, key: str = "student") -> None:
    """Give a configuration the vocabulary, special ids, classes and image size of the data, and let a language model see the past alone."""
    if interface.workload == "causal-lm" and getattr(config, "is_decoder", True) is False:  # BERT and its kin
        config.is_decoder = True
    if has_classes(interface.workload):
        config.num_labels = interface.classes
    if interface.picture is not None and interface.picture.count:
        _fit_picture(config, interface.picture, key)
    if interface.image_shape is not None:
        config.num_channels, config.image_size, _ = interface.image_shape
    else:
        whole, config = config, language_config(config)
        if whole is not config:
            whole.pad_token_id, whole.eos_token_id, whole.bos_token_id = interface.pad_id, interface.end_id, interface.begin_id
        config.vocab_size, config.pad_token_id = interface.vocabulary, interface.pad_id
        config.eos_token_id, config.bos_token_id = interface.end_id, interface.begin_id
        for name in ("cls_token_id", "sep_token_id"):  # ModernBERT's, which name ids of its own vocabulary
            if isinstance(getattr(config, name, None), int):
                setattr(config, name, interface.end_id)
    if hasattr(config, "use_cache"):
        config.use_cache = False


def _fit_picture(config: Any, picture: Picture, key: str) -> None:
    """Give a vision-language model the id in whose places the features of a picture come.

    Raises:
        UserError: It reads text alone.
    """
    names = [name for name in ("image_token_id", "image_token_index") if hasattr(config, name)]
    if not has_vision(config) or not names:
        allowed = "an architecture that reads pictures and text, such as idefics3 or llava, with text_config and vision_config"
        raise UserError.about(f"{key}.model_type", config.model_type, allowed, "Choose another.")
    setattr(config, names[0], picture.id)


def _language_settings(config: Any, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The given settings of the part that reads text."""
    return settings.get("text_config", {}) if has_vision(config) else settings


def _fit_positions(config: Any, settings: Mapping[str, Any], interface: Interface, key: str) -> None:
    """As many positions as a sequence has; those that `settings` give are not changed."""
    have = getattr(config, "max_position_embeddings", None)
    if have is None or interface.image_shape is not None:
        return
    offset = (interface.pad_id or 0) + 1 if config.model_type in OFFSET_POSITIONS else 0
    needed = interface.sequence_length + offset
    if have >= needed:
        return
    if "max_position_embeddings" in settings:
        remedy = f"Leave it out, raise it, or set data.sequence_length to at most {max(have - offset, 0)}."
        raise UserError.about(f"{key}.max_position_embeddings", have, f"at least {needed}, which the sequences need", remedy)
    config.max_position_embeddings = needed


def without_dropout(config: Any, given: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Set every rate of dropout to 0 that `given` does not set."""
    for part in parts_of(config):
        _without_rates(part, given)


def _without_rates(config: Any, given: Mapping[str, Any]) -> None:
    for name, value in config.to_dict().items():
        rate = isinstance(value, float) and not isinstance(value, bool) and any(word in name for word in ("drop", "pdrop"))
        if rate and name not in given:
            setattr(config, name, 0.0)


def build_from(config: Any, workload: str, key: str, *, device: str = "cpu") -> nn.Module:
    """A model of a configuration that a user wrote.

    Raises:
        UserError: transformers builds no such model for the workload, or its sizes do not fit together.
    """
    allowed = f"a configuration that {AUTO_CLASSES[workload]} builds"
    with foreign_errors(f"{key}.model_type", config.model_type, allowed), torch.device(device):
        return build(config, workload)
