"""The vision part of a student: its own, or its teacher's, trained on or frozen."""

from __future__ import annotations

import copy
from typing import Any, cast

from torch import nn

from conf.errors import UserError
from models.architectures.composite import vision_tower


def with_teachers_vision(config: Any, teacher: Any, key: str) -> Any:
    """A student's configuration with the vision part of a teacher's.

    Raises:
        UserError: They are of two architectures.
    """
    if config.model_type != teacher.model_type:
        allowed = f"own, for a {config.model_type} below a {teacher.model_type}; a vision part is kept within one architecture"
        raise UserError.about(f"{key}.vision", "the teacher's", allowed, "Leave it out, or choose the teacher's model_type.")
    config.vision_config = copy.deepcopy(teacher.vision_config)
    return config


def copy_vision(student: nn.Module, teacher: nn.Module, key: str) -> None:
    """Give a student the weights of its teacher's vision tower.

    Raises:
        UserError: The towers differ.
    """
    own, theirs = vision_tower(student), vision_tower(teacher)
    shapes = [None if tower is None else {name: value.shape for name, value in tower.state_dict().items()} for tower in (own, theirs)]
    if own is None or theirs is None or shapes[0] != shapes[1]:
        differs = next((name for name, shape in (shapes[0] or {}).items() if (shapes[1] or {}).get(name) != shape), "the vision part")
        allowed = f"own, for a student whose vision part differs from its teacher's in {differs}"
        raise UserError.about(f"{key}.vision", "the teacher's", allowed, "Leave it out, or make the two alike.")
    own.load_state_dict(theirs.state_dict())


def freeze_vision(model: nn.Module) -> None:
    """Keep the vision tower as it is in a training."""
    tower = vision_tower(model)
    assert tower is not None
    cast(nn.Module, tower).requires_grad_(False)
