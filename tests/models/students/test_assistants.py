"""Assistants lie between teacher and student in size."""

from __future__ import annotations

import math

import pytest
import torch

from conf.schema.stage.student import Shape, Student
from models.architectures.shapes import build, config_for, count, size_of
from models.base.interface import Interface
from models.students.assistants import assistant_shape, assistant_student
from models.students.initialise import student_on_meta

TEXT = Interface("causal-lm", 32, vocabulary=64, end_id=0, pad_id=1)
SENTENCES = Interface("sequence-classification", 32, vocabulary=64, end_id=0, pad_id=1, classes=3)


def shape(**values) -> Shape:
    return Shape.model_validate({"family": "llama", "hidden_size": 128, "layers": 8, "heads": 8, "feed_forward": 256} | values)


def on_meta(wanted: Shape, interface: Interface = TEXT):
    with torch.device("meta"):
        return build(config_for(wanted, interface), interface.workload)


@pytest.mark.parametrize(
    ("teacher", "student", "interface"),
    [
        (shape(), shape(hidden_size=32, layers=2, heads=2, feed_forward=64), TEXT),
        (shape(), shape(hidden_size=32, layers=8, heads=2, feed_forward=100), TEXT),
        (shape(key_value_heads=2), shape(hidden_size=64, layers=2, heads=4, key_value_heads=2, feed_forward=96), TEXT),
        (shape(family="bert"), shape(family="bert", hidden_size=48, layers=3, heads=3, feed_forward=96), SENTENCES),
    ],
)
def test_an_assistant_is_near_the_geometric_mean_and_keeps_the_students_proportions(teacher, student, interface):
    found = assistant_shape(on_meta(teacher, interface), student, interface)
    assert found is not None
    above, between, below = (size_of(s, interface) for s in (teacher, found, student))
    assert below.parameters < between.parameters < above.parameters
    mean = math.sqrt(above.non_embedding * below.non_embedding)
    assert 0.7 < between.non_embedding / mean < 1.4
    assert found.family == student.family
    assert found.hidden_size // found.heads == student.hidden_size // student.heads
    assert student.layers <= found.layers <= teacher.layers
    if student.key_value_heads:
        assert found.key_value_heads
        assert found.heads // found.key_value_heads == student.heads // student.key_value_heads
    assert count(on_meta(found, interface), interface.sequence_length) == between, "it can be built"


def test_there_is_none_between_neighbours():
    student = shape(hidden_size=126, heads=7, feed_forward=256)
    assert assistant_shape(on_meta(shape(hidden_size=126, heads=7, feed_forward=264)), student, TEXT) is None


def test_between_a_teacher_and_a_student_of_another_architecture_lies_one_of_the_teachers():
    qwen = {
        "model_type": "qwen3",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "head_dim": 8,
    }
    teacher, student = on_meta(shape()), Student(config=qwen)
    found = assistant_student(teacher, student, TEXT)
    assert found is not None
    assert found.shape is not None
    between = size_of(found.shape, TEXT).parameters
    above, below = (sum(p.numel() for p in model.parameters()) for model in (teacher, student_on_meta(student, teacher, TEXT, "student")))
    assert between == pytest.approx(math.sqrt(above * below), rel=0.03)
    assert assistant_student(on_meta(shape(layers=1, hidden_size=16, heads=2, feed_forward=16)), student, TEXT) is None
