"""Prune a teacher to a student: first width, then depth.

Every weight is a table whose axes are named below; pruning keeps, along each axis, the channels, heads and units that
`models.students.importance` found to matter most, and then the layers that change the stream most (Muralidharan et al. 2024,
arXiv:2407.14679, whose order it is). One choice of channels serves the whole residual stream; heads and units are chosen layer by layer.
With grouped-query attention whole groups are chosen first, then as many query heads within each, so every query keeps its keys.

An RMS norm divides by the root of the mean square over all channels. With fewer channels that mean changes, so the norm's weights are
multiplied by the root of (mean square of the kept channels) / (mean square of all), as measured: the norm's output keeps its scale, and
channels that are always 0 can be cut without any change of the function.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from conf.errors import UserError
from conf.schema.stage.student import Shape
from models.architectures.shapes import build
from models.base.interface import Interface
from models.data.batches import Batch
from models.embeddings.pooling import pool_like
from models.students.importance import LAYOUTS, Importance, measure_importance

HIDDEN, HEADS, KEYS, UNITS, IDS, WHOLE = "hidden", "heads", "keys", "units", "ids", "whole"
LAYER = re.compile(r"^(.*\blayers?)\.(\d+)\.(.*)$")
# The end of a weight's name, and its axes; the first that matches counts.
AXES: dict[str, dict[str, tuple[str, ...]]] = {
    "llama": {
        r"(embed_tokens|lm_head)\.weight": (IDS, HIDDEN),
        r"q_proj\.(weight|bias)": (HEADS, HIDDEN),
        r"[kv]_proj\.(weight|bias)": (KEYS, HIDDEN),
        r"o_proj\.(weight|bias)": (HIDDEN, HEADS),
        r"(gate|up)_proj\.(weight|bias)": (UNITS, HIDDEN),
        r"down_proj\.(weight|bias)": (HIDDEN, UNITS),
        r"[qk]_norm\.weight": (WHOLE,),
        r"norm\.weight": (HIDDEN,),
        r"score\.weight": (WHOLE, HIDDEN),
        r"projection\.(weight|bias)": (WHOLE, HIDDEN),
    },
    "bert": {
        r"word_embeddings\.weight": (IDS, HIDDEN),
        r"embeddings\.weight": (WHOLE, HIDDEN),
        r"LayerNorm\.(weight|bias)": (HIDDEN,),
        r"self\.query\.(weight|bias)": (HEADS, HIDDEN),
        r"self\.(key|value)\.(weight|bias)": (KEYS, HIDDEN),
        r"attention\.output\.dense\.(weight|bias)": (HIDDEN, HEADS),
        r"intermediate\.dense\.(weight|bias)": (UNITS, HIDDEN),
        r"pooler\.dense\.(weight|bias)": (HIDDEN, HIDDEN),
        r"output\.dense\.(weight|bias)": (HIDDEN, UNITS),
        r"classifier\.(weight|bias)": (WHOLE, HIDDEN),
        r"projection\.(weight|bias)": (WHOLE, HIDDEN),
    },
}
RMS_NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight", "norm.weight")


class Pruned(NamedTuple):
    """A student, and the importance by which it was pruned."""

    model: nn.Module
    importance: Importance


@dataclass(frozen=True)
class KeptIndices:
    """Indices that a narrower model keeps of its teacher, ascending."""

    hidden: Tensor  # (H',)
    heads: list[Tensor]  # for each layer the query heads, group after group
    keys: list[Tensor]  # for each layer the key and value heads
    units: list[Tensor]  # for each layer
    ids: Tensor  # (V',) the first ones: a teacher's vocabulary may be padded beyond the tokenizer's


def prune(
    shape: Shape,
    teacher: nn.Module,
    interface: Interface,
    batches: Callable[[], Iterable[Batch]],
    key: str,
    *,
    measured: Importance | None = None,
) -> Pruned:
    """Cut a student of `shape` out of its teacher.

    Args:
        shape: At most as wide and as deep as the teacher, with heads of the same width.
        teacher: Llama-like or BERT-like; read, never changed.
        interface: Inputs and outputs that the data need.
        batches: Gives training examples; called once for the width, and once more for the depth if both are cut.
        key: Dotted key of the student in the settings, for error messages.
        measured: The importance that an earlier, interrupted attempt measured.

    Returns:
        The student on the processor in fp32, and the importance of the teacher's parts, with the influence of the narrowed layers.

    Raises:
        UserError: As `check_prune`.
    """
    check_prune(shape, teacher, interface, key)
    theirs = cast(Any, teacher).config
    importance = measured or measure_importance(teacher, batches())
    deep = pruned_config(shape, theirs, interface)
    deep.num_hidden_layers = theirs.num_hidden_layers
    if getattr(theirs, "layer_types", None):
        deep.layer_types = list(theirs.layer_types)
    narrowed = narrow(teacher, deep, choose(importance, theirs, deep), importance, interface.workload)
    if shape.layers == theirs.num_hidden_layers:
        return Pruned(narrowed, importance)
    if measured is None and _is_narrower(deep, theirs):
        importance = replace(importance, blocks=measure_importance(narrowed, batches()).blocks)
    layers = _best(importance.blocks, shape.layers).tolist()
    return Pruned(shorten(narrowed, layers, interface.workload), importance)


def pruned_config(shape: Shape, teacher: Any, interface: Interface) -> Any:
    """The teacher's configuration in a student's shape: activation, norms, positions and biases are the teacher's."""
    config = copy.deepcopy(teacher)
    config.update(
        {
            "hidden_size": shape.hidden_size,
            "num_attention_heads": shape.heads,
            "intermediate_size": shape.feed_forward,
            "vocab_size": interface.vocabulary,
            "pad_token_id": interface.pad_id,
            "eos_token_id": interface.end_id,
            "use_cache": False,
        }
    )
    if interface.workload == "embedding":
        pool_like(config, teacher)
    if teacher.model_type != "bert":
        config.num_key_value_heads = shape.key_value_heads or shape.heads
        config.head_dim = shape.features_of_a_head
        config.bos_token_id = interface.begin_id
        config.tie_word_embeddings = shape.tied_embeddings and interface.workload == "causal-lm"
    if getattr(teacher, "layer_types", None):  # which layers are kept is decided later; `shorten` takes their kinds along
        config.layer_types = list(teacher.layer_types)[: shape.layers]
    config.num_hidden_layers = shape.layers
    return config


def check_prune(shape: Shape, teacher: nn.Module, interface: Interface, key: str) -> None:
    """Refuse a student that cannot be cut out of a teacher; works on the meta device.

    Raises:
        UserError: The teacher's kind is not supported, or the shape is larger than the teacher's somewhere, has heads of another width,
            more query heads to a key head, or a tied head where the teacher's is not.
    """
    config = cast(Any, teacher).config
    kind = config.model_type
    supported = {"bert": "bert", "llama": ", ".join(name for name in LAYOUTS if name != "bert")}.get(shape.family, "")
    if not supported:
        allowed = f"random or layers, for shape.family {shape.family}, of which nothing is pruned"
        raise UserError.about(f"{key}.initialisation", "prune", allowed, "Choose another.")
    if kind not in LAYOUTS or (shape.family == "bert") != (kind == "bert"):
        remedy = f"The teacher is of type {kind}; use initialisation=random."
        raise UserError.about(f"{key}.initialisation", "prune", f"for shape.family {shape.family} a teacher of type {supported}", remedy)
    for name, ours, most in _limits(shape, config, interface):
        if ours > most:
            raise UserError.about(f"{key}.{name}", ours, f"at most the teacher's {most}, for initialisation prune", "Make it smaller.")
    head = _head_dim(config)
    if shape.features_of_a_head != head:
        by = f"set shape.head_dim={head}" if shape.family == "llama" else f"choose heads so that hidden_size / heads is {head}"
        raise UserError.about(
            f"{key}.shape.heads",
            f"{shape.heads} heads of {shape.features_of_a_head} features",
            f"heads of {head} features, as the teacher's, for initialisation prune",
            f"Heads are kept or dropped, never cut: {by}.",
        )
    if shape.family == "llama" and shape.tied_embeddings and interface.workload == "causal-lm" and not config.tie_word_embeddings:
        allowed = "false, as the teacher does not tie its head, for initialisation prune"
        raise UserError.about(f"{key}.shape.tied_embeddings", True, allowed, "Set it to false.")


def _limits(shape: Shape, config: Any, interface: Interface) -> list[tuple[str, int, int]]:
    groups, own = _groups(config), shape.key_value_heads or shape.heads
    return [
        ("shape.hidden_size", shape.hidden_size, config.hidden_size),
        ("shape.layers", shape.layers, config.num_hidden_layers),
        ("shape.feed_forward", shape.feed_forward, config.intermediate_size),
        ("shape.heads", shape.heads, config.num_attention_heads),
        ("shape.key_value_heads", own, groups),
        ("shape.heads / shape.key_value_heads", shape.heads // own, config.num_attention_heads // groups),
        ("vocabulary", interface.vocabulary or 0, config.vocab_size),
    ]


def _groups(config: Any) -> int:
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def _head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _is_narrower(ours: Any, theirs: Any) -> bool:
    names = ("hidden_size", "num_attention_heads", "intermediate_size")
    return any(getattr(ours, name) != getattr(theirs, name) for name in names) or _groups(ours) != _groups(theirs)


def choose(importance: Importance, teacher: Any, student: Any) -> KeptIndices:
    """Indices that a student of a configuration keeps of its teacher."""
    groups, queries = _groups(student), student.num_attention_heads // _groups(student)
    heads, keys = zip(*(_best_heads(row, _groups(teacher), groups, queries) for row in importance.heads), strict=True)
    return KeptIndices(
        hidden=_best(importance.hidden, student.hidden_size),
        heads=list(heads),
        keys=list(keys),
        units=[_best(row, student.intermediate_size) for row in importance.feed_forward],
        ids=torch.arange(student.vocab_size),
    )


def _best(scores: Tensor, count: int) -> Tensor:
    """Indices of the highest scores, ascending; of equal ones the first."""
    return scores.sort(descending=True, stable=True).indices[:count].sort().values


def _best_heads(scores: Tensor, groups: int, kept_groups: int, queries: int) -> tuple[Tensor, Tensor]:
    """Query heads and key heads to keep: the groups whose best `queries` heads matter most together, and in each of them those."""
    grouped = scores.view(groups, -1)
    keys = _best(grouped.sort(dim=1, descending=True).values[:, :queries].sum(dim=1), kept_groups)
    heads = [int(group) * grouped.shape[1] + _best(grouped[group], queries) for group in keys]
    return torch.cat(heads), keys


def narrow(teacher: nn.Module, config: Any, kept: KeptIndices, importance: Importance, workload: str) -> nn.Module:
    """The teacher with fewer channels, heads, units and ids, and all its layers."""
    model = _empty(config, workload)
    theirs, head = teacher.state_dict(), _head_dim(config)
    prefix = cast(Any, teacher).base_model_prefix
    cut: dict[str, Tensor] = {}
    for name, own in model.state_dict().items():
        if name not in theirs:  # the projection of an encoder whose teacher needs none: each kept channel to its place
            cut[name] = torch.zeros_like(own).index_put((kept.hidden, torch.arange(own.shape[1])), torch.ones(()))
            continue
        tensor = theirs[name].detach().cpu().float()
        for axis, meaning in enumerate(axes_of(name, config.model_type)[: tensor.ndim]):
            chosen = _indices(meaning, name, kept, head)
            tensor = tensor if chosen is None else tensor.index_select(axis, chosen)
        if config.model_type != "bert" and name.endswith(RMS_NORMS) and not name.endswith(("q_norm.weight", "k_norm.weight")):
            energy = importance.energy[name.removeprefix(f"{prefix}.").removesuffix(".weight")]
            tensor = tensor * (energy[kept.hidden].mean() / energy.mean()).sqrt().float().nan_to_num(1.0)
        cut[name] = tensor
    model.load_state_dict(cut)
    return model


def shorten(model: nn.Module, layers: Sequence[int], workload: str) -> nn.Module:
    """A copy of a model that keeps the given layers."""
    config = copy.deepcopy(cast(Any, model).config)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in layers]
    config.num_hidden_layers = len(layers)
    short, state = _empty(config, workload), model.state_dict()
    taken = {}
    for name in short.state_dict():
        match = LAYER.match(name)
        taken[name] = state[f"{match[1]}.{layers[int(match[2])]}.{match[3]}" if match else name]
    short.load_state_dict(taken)
    return short


def axes_of(name: str, model_type: str) -> tuple[str, ...]:
    """The meaning of each axis of a weight, by the end of its name."""
    table = AXES["bert" if model_type == "bert" else "llama"]
    return next(axes for pattern, axes in table.items() if re.search(pattern + "$", name))


def _indices(meaning: str, name: str, kept: KeptIndices, head: int) -> Tensor | None:
    match = LAYER.match(name)
    layer = int(match[2]) if match else 0
    if meaning in (HEADS, KEYS):
        chosen = kept.heads[layer] if meaning == HEADS else kept.keys[layer]
        return (chosen[:, None] * head + torch.arange(head)).flatten()
    return {HIDDEN: kept.hidden, UNITS: kept.units[layer], IDS: kept.ids, WHOLE: None}[meaning]


def _empty(config: Any, workload: str) -> nn.Module:
    """A model whose weights are about to be set."""
    with torch.random.fork_rng(devices=[]):
        return build(config, workload)
