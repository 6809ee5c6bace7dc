"""One student: found, resumed or taught by its parent."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from torch import nn

from conf.errors import LadderError, UserError
from conf.schema import Ladder, Stage
from models.students import make_student
from tasks.compute import Work, corpus_of, interface_of, obtain, precision_of
from tasks.fingerprint import stage_identity
from tasks.records import DataRecord, StageRecord
from tasks.runs import Context
from tasks.show import shown


@task(name="student", task_run_name="{stage.name} <- {parent.name}", cache_policy=NO_CACHE, persist_result=False)
def train_student(
    stage: Stage, parent: StageRecord, ladder: Ladder, data: DataRecord, context: Context
) -> StageRecord | State[StageRecord]:
    """Find the student in the store, or teach it."""
    return shown(obtain(student_work(stage, parent, ladder, data), ladder, data, context))


def student_work(stage: Stage, parent: StageRecord, ladder: Ladder, data: DataRecord) -> Work:
    """A stage as a piece of work for `obtain`.

    Raises:
        LadderError: The parent may not teach, because its gate stopped it.
    """
    if parent.gate == "stopped":
        raise LadderError(f"{parent.name} was stopped by its gate and may not teach {stage.name}")
    precision = precision_of(ladder, stage.training)
    identity = stage_identity(ladder, stage, precision, data.content_hash, (parent.weights_sha256,))
    interface, seed = interface_of(corpus_of(data)), ladder.stage_seed(stage)
    index = ladder.stages.index(stage)

    def make(teacher: nn.Module | None) -> nn.Module:
        assert teacher is not None
        model = make_student(stage.student, teacher, interface, seed, f"stages[{index}].student")
        own = sum(p.numel() for p in model.parameters())
        if own > parent.parameters:
            raise larger(f"stages[{index}].student.shape", stage.name, own, parent.name, parent.parameters)
        return model

    return Work(stage.name, "stage", identity, stage.training, stage.objective, seed, make, (parent,))


def larger(key: str, student: str, parameters: int, teacher: str, teacher_parameters: int) -> UserError:
    """The error for a student that is larger than its teacher."""
    return UserError.about(
        key,
        f"{student} with {parameters:,} parameters",
        f"at most the {teacher_parameters:,} of its teacher, {teacher}",
        "Make the student smaller, or order the stages from large to small.",
    )
