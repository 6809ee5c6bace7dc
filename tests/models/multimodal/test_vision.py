"""A student's vision part: its own, the teacher's, or the teacher's frozen; the number of features must fit."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from conf.errors import UserError
from conf.schema.stage.student import Student
from models.architectures.composite import vision_tower
from models.architectures.shapes import build, count
from models.base.interface import Interface, Picture
from models.students.initialise import make_student
from tests.factories import END, PAD
from tests.vision_models import IDS, SMALL, config

INTERFACE = Interface("image-text", 32, IDS, END, PAD, picture=Picture(258, 4, (1, 1, 3, 16, 16)))
LANGUAGE = {name: value for name, value in SMALL.items() if name != "vision_config"}


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    torch.manual_seed(0)
    return build(config(), "image-text")


def tower(model: nn.Module) -> dict[str, torch.Tensor]:
    return cast(nn.Module, vision_tower(model)).state_dict()


@pytest.mark.parametrize("vision", ["kept", "frozen"])
def test_a_kept_vision_part_is_the_teachers_and_a_frozen_one_stays(teacher: nn.Module, vision: Any) -> None:
    made = make_student(Student(config=LANGUAGE, vision=vision), teacher, INTERFACE, 0, "student").model
    theirs = tower(teacher)
    assert all(torch.equal(value, theirs[name]) for name, value in tower(made).items())
    assert {p.requires_grad for p in cast(nn.Module, vision_tower(made)).parameters()} == {vision == "kept"}
    assert sum(p.requires_grad for p in made.parameters()) > 5
    assert cast(Any, made).config.image_token_id == 258


def test_a_students_own_vision_part_is_a_function_of_the_seed(teacher: nn.Module) -> None:
    one, two, other = (make_student(Student(config=SMALL), teacher, INTERFACE, seed, "student").model for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_smolvlm_takes_what_idefics3_takes(teacher: nn.Module) -> None:
    made: Any = make_student(Student(config={**SMALL, "model_type": "smolvlm"}), teacher, INTERFACE, 0, "student").model
    ids = torch.tensor([[258, 258, 258, 258, 65, 66]])
    pixels = torch.randn(1, 1, 3, 16, 16)
    assert made(input_ids=ids, pixel_values=pixels).logits.shape == (1, 6, IDS)


def test_two_architectures_share_no_vision_part(teacher: nn.Module) -> None:
    other = {"model_type": "llava", "text_config": SMALL["text_config"]}
    with pytest.raises(UserError, match=r"student\.vision: got \"the teacher's\"; allowed: own, for a llava below a idefics3"):
        make_student(Student(config=other, vision="kept"), teacher, INTERFACE, 0, "student")


def test_a_model_of_text_alone_is_no_student(teacher: nn.Module) -> None:
    with pytest.raises(UserError, match=r"student\.config\.model_type: got 'llama'; allowed: an architecture that reads pictures"):
        make_student(Student(config={"model_type": "llama", **SMALL["text_config"]}), teacher, INTERFACE, 0, "student")


def test_operations_of_the_vision_part_are_counted(teacher: nn.Module) -> None:
    text = build(config().text_config, "causal-lm")
    with_picture, alone = count(teacher, 32), count(text, 32)
    weights = sum(
        p.numel() for name, p in cast(nn.Module, vision_tower(teacher)).named_parameters() if p.ndim > 1 and "position" not in name
    )
    assert with_picture.forward_flops - alone.forward_flops == pytest.approx(2 * 16 * weights + 4 * 16**2 * 16, rel=0.1)
    assert (with_picture.width, with_picture.layers) == (16, 2)
