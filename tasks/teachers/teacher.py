"""The root teacher: trained here from labels alone, or taken from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect.client.schemas.objects import State

from conf.schema import CheckpointTeacher, Ladder, TrainedTeacher
from tasks.compute import Work, corpus_of, interface_of, obtain, precision_of
from tasks.fingerprint import teacher_identity
from tasks.records import DataRecord, StageRecord
from tasks.runs import Context
from tasks.show import cancellable, shown, step
from tasks.transient import RETRY

if TYPE_CHECKING:
    from torch import nn

NAME = "teacher"


@step("teacher", "teacher: {ladder.teacher.source}", **RETRY)
@cancellable
def prepare_teacher(ladder: Ladder, data: DataRecord, context: Context) -> StageRecord | State[StageRecord]:
    """Find, train or import the root teacher; nothing is taught before its schedule is finished."""
    if isinstance(ladder.teacher, CheckpointTeacher):
        from tasks.imported import import_checkpoint

        return shown(import_checkpoint(ladder, ladder.teacher, data, context))
    return shown(obtain(teacher_work(ladder, ladder.teacher, data), ladder, data, context))


def teacher_work(ladder: Ladder, teacher: TrainedTeacher, data: DataRecord) -> Work:
    """The teacher as a piece of work for `obtain`."""
    identity = teacher_identity(ladder, teacher, precision_of(ladder, teacher.training), data.content_hash)
    interface = interface_of(corpus_of(data))

    def make(_: nn.Module | None, aside: Path) -> nn.Module:
        from models.shapes import config_for
        from models.students import fresh

        return fresh(config_for(teacher.shape, interface), interface.workload, ladder.seed)

    return Work(NAME, "teacher", identity, teacher.training, None, ladder.seed, make)
