from itertools import pairwise

import pytest

from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.stage.student import Shape
from conf.schema.teacher import CheckpointTeacher
from models.architectures.shapes import Size, size_of
from models.base.interface import Interface

NAMED = {"teacher": 1.0e9, "300m": 300e6, "100m": 100e6, "30m": 30e6}


@pytest.fixture(scope="module")
def ladder() -> Ladder:
    return load("llama-1b", []).ladder


@pytest.fixture(scope="module")
def shapes(ladder: Ladder) -> dict[str, Shape]:
    assert isinstance(ladder.teacher, CheckpointTeacher)
    assert ladder.teacher.shape is not None
    return {"teacher": ladder.teacher.shape} | {stage.name: stage.student.shape for stage in ladder.stages}


@pytest.fixture(scope="module")
def sizes(ladder: Ladder, shapes: dict[str, Shape]) -> dict[str, Size]:
    interface = Interface(ladder.workload, ladder.data.sequence_length, ladder.tokenizer.vocabulary, 2, 0)
    return {name: size_of(shape, interface) for name, shape in shapes.items()}


def test_models_have_the_sizes_of_their_names(sizes: dict[str, Size]) -> None:
    assert list(sizes) == list(NAMED)
    for name, size in sizes.items():
        assert size.parameters == pytest.approx(NAMED[name], rel=0.02)


def test_every_student_is_smaller_in_every_way(shapes: dict[str, Shape], sizes: dict[str, Size]) -> None:
    order = list(sizes)
    for above, below in pairwise(order):
        assert sizes[below].non_embedding < sizes[above].non_embedding / 2
        assert sizes[below].forward_flops < sizes[above].forward_flops / 2
        assert shapes[below].hidden_size < shapes[above].hidden_size
        assert shapes[below].layers <= shapes[above].layers


def test_shapes_suit_a_gpu(shapes: dict[str, Shape]) -> None:
    for name, shape in shapes.items():
        assert shape.family == "llama"
        assert shape.hidden_size // shape.heads in (64, 128)
        assert shape.hidden_size % 128 == 0
        assert shape.feed_forward % 64 == 0
        assert 2 <= shape.feed_forward / shape.hidden_size <= 5
        assert shape.key_value_heads is not None
        assert shape.key_value_heads < shape.heads
        assert shape.tied_embeddings == (name != "teacher")


def test_the_budget_is_at_most_twenty_tokens_a_parameter(ladder: Ladder, sizes: dict[str, Size]) -> None:
    assert (ladder.data.sequence_length, ladder.tokenizer.kind, ladder.tokenizer.vocabulary) == (2048, "teacher", 32000)
    for stage in ladder.stages:
        tokens = stage.training.steps * stage.training.batch_size * ladder.data.sequence_length
        assert 15 <= tokens / sizes[stage.name].parameters <= 20
        assert stage.training.batch_size // stage.training.accumulation == 8
        assert stage.training.precision == "bf16"


def test_gates_bound_the_size_and_leave_room_for_it(ladder: Ladder, sizes: dict[str, Size]) -> None:
    for stage in ladder.stages:
        assert stage.gate.max_parameters is not None
        assert sizes[stage.name].parameters <= stage.gate.max_parameters <= 1.02 * NAMED[stage.name]
        assert stage.gate.min_parent_retention
        assert stage.gate.min_root_retention
        assert stage.gate.min_root_retention <= stage.gate.min_parent_retention
