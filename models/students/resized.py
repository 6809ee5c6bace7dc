"""The configuration of a smaller model: its teacher's settings, with other sizes."""

from __future__ import annotations

from typing import Any, NamedTuple

from conf.errors import UserError, foreign_errors
from models.architectures.configs import DECIDED, without_ignored

FEED_FORWARD = ("intermediate_size", "hidden_dim", "n_inner", "ffn_dim")


class Sizes(NamedTuple):
    """The numbers that make one architecture larger or smaller."""

    width: int
    layers: int
    heads: int
    groups: int  # key and value heads
    head: int  # features of a head
    feed_forward: int | None  # None: it follows from the width


def feed_forward_name(config: Any) -> str | None:
    """Name of the setting that holds the width of the feed-forward part; None where there is none."""
    return next((name for name in FEED_FORWARD if hasattr(config, name)), None)


def resized(teacher: Any, theirs: Sizes, sizes: Sizes) -> dict[str, Any]:
    """The teacher's own settings, as far as they differ from its architecture's defaults, with other sizes."""
    made = kept_settings(teacher)
    names = teacher.attribute_map
    made |= {
        "model_type": teacher.model_type,
        names.get("hidden_size", "hidden_size"): sizes.width,
        names.get("num_hidden_layers", "num_hidden_layers"): sizes.layers,
        names.get("num_attention_heads", "num_attention_heads"): sizes.heads,
    }
    if hasattr(teacher, "num_key_value_heads"):
        made["num_key_value_heads"] = sizes.groups
    if getattr(teacher, "head_dim", None) is not None:
        made["head_dim"] = sizes.head
    name = feed_forward_name(teacher)
    if name is not None:
        made[name] = sizes.feed_forward
    if hasattr(teacher, "initializer_range"):
        made["initializer_range"] = round(sizes.width**-0.5, 4)  # as `config_for` has it
    for name, old, new in (
        ("pooler_hidden_size", theirs.width, sizes.width),
        ("embedding_size", theirs.width, sizes.width),
        ("word_embed_proj_dim", theirs.width, sizes.width),
        ("query_pre_attn_scalar", theirs.head, sizes.head),
    ):
        if getattr(teacher, name, None) == old:
            made[name] = new
    return without_ignored(made)


def kept_settings(teacher: Any) -> dict[str, Any]:
    """The settings that a smaller model takes over: none of single layers, of the data, or of dropout."""
    kept, layers = _set_by(teacher), getattr(teacher, "num_hidden_layers", None)
    per_layer = {name for name, value in teacher.to_dict().items() if layers and isinstance(value, list) and len(value) == layers}
    dropped = per_layer | DECIDED | {name for name in kept if "drop" in name or name.startswith("_")}
    return {name: value for name, value in kept.items() if name not in dropped and _is_plain(value)}


def _set_by(teacher: Any) -> dict[str, Any]:
    """The settings in which a configuration differs from the defaults of its architecture."""
    try:
        with foreign_errors("model_type", type(teacher).__name__, "a configuration with defaults"):
            defaults = type(teacher)().to_dict()
    except UserError:  # it needs arguments, and so has no defaults
        defaults = {}
    return {name: value for name, value in teacher.to_dict().items() if name not in defaults or defaults[name] != value}


def _is_plain(value: Any) -> bool:
    """Whether JSON and YAML hold it."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)
