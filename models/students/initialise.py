"""First weights of a student: random, layers of its teacher, or pruned."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from conf.errors import UserError
from conf.schema.stage.student import Student
from models.alignment.teacher import AlignedTeacher
from models.architectures.composite import language_config
from models.architectures.configs import build_from, fitted_config
from models.architectures.shapes import build, config_for
from models.base.interface import Interface
from models.data.batches import Batch
from models.embeddings.pooling import pool_like
from models.embeddings.two_towers import copy_scale, share_space
from models.multimodal.vision import copy_vision, freeze_vision, with_teachers_vision
from models.students.existing import existing_config, load_existing
from models.students.first_weights import answer_evenly
from models.students.importance import Importance
from models.students.pruning import LAYER, check_prune, prune, pruned_config

PRE_NORM = ("llama", "vit")
BRANCH_END = re.compile(r"\.(o_proj|down_proj|fc2)\.weight$")
# Settings that change the function of a layer and not the shapes of its weights: equal by need, or taken over from the teacher.
EQUAL = ("model_type", "num_attention_heads", "num_key_value_heads")
TAKEN_OVER = ("hidden_act", "rms_norm_eps", "layer_norm_eps", "rope_parameters")


def evenly_spaced(teacher_layers: int, student_layers: int) -> list[int]:
    """Indices of the layers that a student takes: the first, the last, and evenly between (Sanh et al. 2019, arXiv:1910.01108)."""
    if student_layers == 1:
        return [0]
    return [round(i * (teacher_layers - 1) / (student_layers - 1)) for i in range(student_layers)]


class Initialised(NamedTuple):
    """A student before its training, and the importance by which it was pruned."""

    model: nn.Module
    importance: Importance | None = None


def make_student(
    student: Student,
    teacher: nn.Module,
    interface: Interface,
    seed: int,
    key: str,
    *,
    batches: Callable[[], Iterable[Batch]] = tuple,
    measured: Importance | None = None,
) -> Initialised:
    """Build a student and give it its first weights.

    Args:
        student: Shape and kind of initialisation.
        teacher: The model it is taught by; read, never changed.
        interface: Inputs and outputs that the data need.
        seed: Seed of random weights.
        key: Dotted key of the student in the settings, for error messages.
        batches: Gives the training examples by which importance is judged (prune).
        measured: The importance that an earlier, interrupted attempt measured (prune).

    Raises:
        UserError: `layers` or `prune` does not fit the shapes, or the vocabulary is larger than the teacher's.
    """
    # The ids of a teacher with another tokenizer are no measure.
    theirs = interface.vocabulary if isinstance(teacher, AlignedTeacher) else None
    if interface.vocabulary is not None and interface.vocabulary > (
        theirs := theirs or language_config(cast(Any, teacher).config).vocab_size
    ):
        remedy = "A student answers in ids that its teacher knows: give both the same vocabulary."
        raise UserError.about(f"{key}.vocabulary", f"{interface.vocabulary} ids", f"at most the teacher's {theirs}", remedy)
    if student.source == "checkpoint":
        existing = load_existing(Path(str(student.path)), interface, seed, key, cast(Any, teacher).config)
        if student.vision == "frozen":
            freeze_vision(existing)
        return Initialised(existing)
    if student.initialisation == "prune":
        assert student.shape is not None
        return Initialised(*prune(student.shape, teacher, interface, batches, key, measured=measured))
    model = random_model(student_config(student, teacher, interface, key), interface.workload, seed)
    if student.initialisation == "layers":
        _copy_layers(model, teacher, interface, key)
    if interface.workload == "image-text-embedding":
        copy_scale(model, teacher)
    if student.vision != "own":
        copy_vision(model, teacher, key)
    if student.vision == "frozen":
        freeze_vision(model)
    return Initialised(model)


def student_config(student: Student, teacher: nn.Module | None, interface: Interface, key: str) -> Any:
    """A student's configuration; works with a teacher on the meta device, and as far as possible without one.

    Raises:
        UserError: The teacher cannot be pruned to this shape, or the configuration or the checkpoint does not fit the data.
    """
    config = _own_config(student, teacher, interface, key)
    if interface.workload == "embedding" and student.source != "checkpoint":
        pool_like(config, None if teacher is None else cast(Any, teacher).config)
    if interface.workload == "image-text-embedding" and student.source != "checkpoint" and teacher is not None:
        share_space(config, cast(Any, teacher).config)
    return config


def _own_config(student: Student, teacher: nn.Module | None, interface: Interface, key: str) -> Any:
    if student.source == "checkpoint":
        return existing_config(Path(str(student.path)), interface, key, None if teacher is None else cast(Any, teacher).config)
    if isinstance(student.config, dict):
        config = fitted_config(student.config, interface, f"{key}.config")
        if student.vision != "own" and teacher is not None:
            config = with_teachers_vision(config, cast(Any, teacher).config, key)
    else:
        assert student.shape is not None, "students are settled when a run or a plan begins"
        if student.initialisation == "prune" and teacher is not None:
            check_prune(student.shape, teacher, interface, key)
            return pruned_config(student.shape, cast(Any, teacher).config, interface)
        config = config_for(student.shape, interface)
    if student.initialisation == "layers" and teacher is not None:
        theirs = cast(Any, teacher).config
        config.update(
            {field: copy.deepcopy(getattr(theirs, field)) for field in TAKEN_OVER if hasattr(config, field) and hasattr(theirs, field)}
        )
    return config


def student_on_meta(student: Student, teacher: nn.Module | None, interface: Interface, key: str) -> nn.Module:
    """A student without memory, for its shapes and counts.

    Raises:
        UserError: As `student_config`, or transformers builds no such model for the workload.
    """
    config = student_config(student, teacher, interface, key)
    if isinstance(student.config, dict):
        return build_from(config, interface.workload, f"{key}.config", device="meta")
    with torch.device("meta"):
        return build(config, interface.workload)


def random_model(config: Any, workload: str, seed: int) -> nn.Module:
    """A model with random weights, a function of configuration and seed alone.

    The last matrix of each residual branch of a pre-norm model is 0, so that training begins with the identity (Zhang et al. 2019,
    arXiv:1901.09321): without it a narrow model stays on a plateau for a hundred steps. Every logit is 0 (see `answer_evenly`).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(config, workload)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if config.model_type in PRE_NORM and BRANCH_END.search(name):
                parameter.zero_()
    answer_evenly(model)
    return model


def layer_sources(student: nn.Module, teacher: nn.Module, interface: Interface, key: str) -> dict[str, tuple[str, int]]:
    """For every weight of the student, the teacher's weight that it is copied from and its rows; works on the meta device.

    Raises:
        UserError: A weight has no counterpart of its shape, a weight of a kept layer would be lost, or the heads differ.
    """
    _same_kind(student, teacher, key)
    theirs, ours = teacher.state_dict(), student.state_dict()
    kept = evenly_spaced(_depth(theirs), _depth(ours))
    sources: dict[str, tuple[str, int]] = {}
    for name, tensor in ours.items():
        match = LAYER.match(name)
        origin = f"{match[1]}.{kept[int(match[2])]}.{match[3]}" if match else name
        source = theirs.get(origin)
        # A teacher's vocabulary may be padded beyond the tokenizer's ids; the surplus rows stay behind.
        rows = len(tensor) if tensor.ndim and len(tensor) == interface.vocabulary else None
        if source is None or (source[:rows] if rows else source).shape != tensor.shape:
            counterpart = "no such weight" if source is None else f"shape {tuple(source.shape)}"
            raise _unlike(key, f"{name} has shape {tuple(tensor.shape)}, the teacher has {counterpart}")
        sources[name] = (origin, len(tensor) if tensor.ndim else 0)
    used = {origin for origin, _ in sources.values()}
    for name in theirs:
        match = LAYER.match(name)
        if name not in used and (match is None or int(match[2]) in kept):
            raise _unlike(key, f"the teacher's {name} has no place in the student")
    return sources


def _same_kind(student: nn.Module, teacher: nn.Module, key: str) -> None:
    ours, theirs = cast(Any, student).config, cast(Any, teacher).config
    for field in EQUAL:
        own, other = getattr(ours, field, None), getattr(theirs, field, None)
        if own != other:
            raise _unlike(key, f"{field} is {own} in the student and {other} in the teacher")
    if _tied(student) and not _tied(teacher):
        raise _unlike(key, "the student ties its output head to its embedding, the teacher does not (tied_embeddings)")


def _tied(model: nn.Module) -> bool:
    return len(list(model.parameters())) < len(list(model.named_parameters(remove_duplicate=False)))


def _unlike(key: str, difference: str) -> UserError:
    return UserError.about(
        f"{key}.initialisation",
        "layers",
        "a student that differs from its teacher in the number of layers alone",
        f"Here {difference}. Make the shapes equal, or use initialisation=random.",
    )


def _copy_layers(student: nn.Module, teacher: nn.Module, interface: Interface, key: str) -> None:
    theirs = teacher.state_dict()
    sources = layer_sources(student, teacher, interface, key)
    student.load_state_dict({name: theirs[origin][:rows] if rows else theirs[origin] for name, (origin, rows) in sources.items()})


def _depth(state: dict[str, torch.Tensor]) -> int:
    return 1 + max((int(match[2]) for match in map(LAYER.match, state) if match), default=-1)
