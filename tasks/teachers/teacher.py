"""The root teacher: trained here, or a checkpoint as it is or trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from conf.schema.ladder import Ladder
from conf.schema.teacher import AnswersTeacher, CheckpointTeacher, TrainedTeacher
from models.base.device import precision_of
from tasks.records.run import TEACHER, DataRecord, StageRecord
from tasks.runtime.stage_inputs import StageInputs
from tasks.training.find_or_train import find_or_train
from tasks.training.identity import teacher_identity
from tasks.training.teaching import kept_steps
from tasks.training.work import Work

if TYPE_CHECKING:
    from torch import nn


def prepare_teacher(inputs: StageInputs) -> StageRecord:
    """Find, train or import the root teacher; no student starts before its schedule is finished."""
    teacher = inputs.ladder.teacher
    if isinstance(teacher, CheckpointTeacher):
        if teacher.training is not None:
            from tasks.teachers.fine_tuning import fine_tuning_work

            return find_or_train(fine_tuning_work(teacher, teacher.training, inputs), inputs)
        from tasks.teachers.import_checkpoint import import_checkpoint

        return import_checkpoint(teacher, inputs)
    if isinstance(teacher, AnswersTeacher):
        from tasks.teachers.answers import import_answers

        return import_answers(teacher, inputs)
    return find_or_train(teacher_work(inputs.ladder, teacher, inputs.data), inputs)


def teacher_work(ladder: Ladder, teacher: TrainedTeacher, data: DataRecord) -> Work:
    """The teacher as a piece of work for `find_or_train`."""
    identity = teacher_identity(ladder, teacher, precision_of(ladder, teacher.training), data.content_hash)
    interface = data.corpus().interface

    def make(_: nn.Module | None, aside: Path) -> nn.Module:
        from models.architectures.shapes import config_for
        from models.students.initialise import random_model

        return random_model(config_for(teacher.shape, interface), interface.workload, ladder.seed)

    steps = kept_steps(ladder)
    weights, rationale = teacher.class_weights, teacher.rationale
    return Work(
        TEACHER, "teacher", identity, teacher.training, None, ladder.seed, make, class_weights=weights, keep=steps, rationale=rationale
    )
