"""A checkpoint that is trained on the data before it teaches, as a piece of work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from conf.errors import UserError
from conf.schema.stage.training import Training
from conf.schema.teacher import CheckpointTeacher
from models.base.device import precision_of
from tasks.records.run import TEACHER
from tasks.runtime.logs import log
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.fit import check_checkpoint, check_corpus, check_students
from tasks.teachers.other_tokenizer import other_tokenizer
from tasks.teachers.teacher_source import checkpoint_identity, resolve_checkpoint
from tasks.training.identity import fine_tuning_identity
from tasks.training.work import Work

if TYPE_CHECKING:
    from torch import nn


def fine_tuning_work(teacher: CheckpointTeacher, training: Training, inputs: StageInputs) -> Work:
    """The root teacher as a training of all weights of a checkpoint, from labels alone.

    Raises:
        UserError: The checkpoint is missing, damaged, or does not fit the settings or the data.
    """
    ladder, data = inputs.ladder, inputs.data
    source, corpus = resolve_checkpoint(teacher, inputs.context), data.corpus()
    if other_tokenizer(source, ladder, corpus) is not None:
        allowed = "none, for a teacher whose tokenizer is not that of the data"
        raise UserError.about("teacher.training", "steps", allowed, "Train it apart, or set tokenizer.kind=teacher.")
    check_corpus(source, check_checkpoint(source, ladder), teacher, corpus)
    checkpoint = checkpoint_identity(source, ladder.workload)
    identity = fine_tuning_identity(ladder, teacher, checkpoint, training, precision_of(ladder, training), data.content_hash)

    def make(_: nn.Module | None, aside: Path) -> nn.Module:
        from models.architectures.checkpoint import check_finite
        from models.students.pretrained import load_to_train

        check_finite(source)
        made = load_to_train(source, corpus.interface, corpus.info.label_names, ladder.seed, teacher.classes)
        check_students(made.model, ladder, corpus)
        if corpus.info.label_names:
            log.info("teacher: %s is trained on; its head is %s", source, made.head)
        return made.model

    weights = teacher.class_weights
    return Work(
        TEACHER,
        "teacher",
        identity,
        training,
        None,
        ladder.seed,
        make,
        class_weights=weights,
        pretrained=True,
        rationale=teacher.rationale,
    )
