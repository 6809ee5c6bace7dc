"""The shape of an assistant between a teacher and its student.

Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant" (2020): a gap that is too wide is bridged by a model in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

from torch import nn

from conf.errors import UserError
from conf.schema.stage.student import Shape, Student
from models.architectures.shapes import count, size_of
from models.base.interface import Interface
from models.students.initialise import student_on_meta
from models.students.sizes import TOLERANCE, student_of_size


def assistant_student(teacher: nn.Module, student: Student, interface: Interface) -> Student | None:
    """The assistant between a teacher and any student: of a shape like the student's, or else of the teacher's own architecture.

    Returns:
        None where no size lies between them.
    """
    if student.shape is not None:
        shape = assistant_shape(teacher, student.shape, interface)
        return None if shape is None else Student(shape=shape)
    above = count(teacher, interface.sequence_length).parameters
    below = count(student_on_meta(student, teacher, interface, "student"), interface.sequence_length).parameters
    wanted = round(math.sqrt(above * below))
    if not below * (1 + TOLERANCE) < wanted < above / (1 + TOLERANCE):
        return None
    try:
        made = student_of_size(cast(Any, teacher).config, wanted, interface, "student")
    except UserError:
        return None
    return Student(shape=made) if isinstance(made, Shape) else Student(config=made)


def assistant_shape(teacher: nn.Module, student: Shape, interface: Interface) -> Shape | None:
    """The shape whose non-embedding parameters come nearest, by ratio, to the geometric mean of teacher's and student's.

    Args:
        teacher: The model that teaches; on any device, the meta device too.
        student: Gives the family, the width of a head and the proportions.
        interface: Inputs and outputs that the data need.

    Returns:
        A shape larger than the student and smaller than the teacher, in non-embedding and in all parameters; None if there is none.
    """
    above, below = count(teacher, interface.sequence_length), size_of(student, interface)
    target = math.sqrt(above.non_embedding * below.non_embedding)
    best: tuple[float, Shape] | None = None
    for shape in _candidates(teacher, student, target / below.non_embedding):
        size = size_of(shape, interface)
        fits = below.parameters < size.parameters < above.parameters and below.non_embedding < size.non_embedding < above.non_embedding
        distance = abs(math.log(size.non_embedding / target))
        if fits and (best is None or distance < best[0]):
            best = distance, shape
    return best[1] if best else None


def _candidates(teacher: nn.Module, student: Shape, growth: float) -> Iterator[Shape]:
    """Shapes of the student's family and proportions, `growth` times its size: as deep as the student, as the teacher, or between."""
    layers = int(getattr(cast(Any, teacher).config, "num_hidden_layers", student.layers))
    step = student.heads // (student.key_value_heads or student.heads)  # heads that share a key and a value stay together
    head, ratio = student.hidden_size // student.heads, student.feed_forward / student.hidden_size
    for depth in {student.layers, round(math.sqrt(layers * student.layers)), max(layers, student.layers)}:
        # Parameters grow with the depth and with the square of the width.
        wanted = student.heads * math.sqrt(growth * student.layers / depth) / step
        for heads in {max(math.floor(wanted), 1) * step, math.ceil(wanted) * step}:
            shared = heads // step if student.key_value_heads else None
            widths = {
                "hidden_size": heads * head,
                "heads": heads,
                "key_value_heads": shared,
                "feed_forward": max(8 * round(heads * head * ratio / 8), 8),
            }
            yield student.model_copy(update={"layers": depth, **widths})
