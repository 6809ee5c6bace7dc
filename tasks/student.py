"""One student: found, resumed or taught by its parent; or, on its gate's demand, taught on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from conf.errors import LadderError, UserError
from conf.schema import Ladder, Stage
from tasks.compute import Work, corpus_of, interface_of, obtain, precision_of
from tasks.fingerprint import stage_identity
from tasks.records import DataRecord, Extension, StageRecord
from tasks.runs import Context
from tasks.show import cancellable, shown

if TYPE_CHECKING:
    from torch import nn


@task(name="student", task_run_name="{stage.name} <- {parent.name}", cache_policy=NO_CACHE, persist_result=False)
@cancellable
def train_student(
    stage: Stage, parent: StageRecord, ladder: Ladder, data: DataRecord, context: Context, extension: Extension | None = None
) -> StageRecord | State[StageRecord]:
    """Find the student in the store, or teach it."""
    work = student_work(stage, parent, ladder, data)
    if extension is None:
        return shown(obtain(work, ladder, data, context))
    return shown(_added(extension, obtain(extended(work, extension, ladder), ladder, data, context)))


def extended(work: Work, extension: Extension, ladder: Ladder) -> Work:
    """A student's work, continued: the same objective and schedule over more steps, from the weights it has, on other batches."""
    training = work.training.model_copy(update={"steps": extension.steps})
    more = {"continues": extension.student.weights_sha256, "extension": extension.number, "steps": extension.steps}

    def make(teacher: nn.Module | None) -> nn.Module:
        from models.checkpoint import load_model

        return load_model(Path(extension.student.folder), ladder.workload)

    return replace(work, identity={**work.identity, "extension": more}, training=training, seed=work.seed + extension.number, make=make)


def _added(extension: Extension, record: StageRecord) -> StageRecord:
    """What the student has cost since its first step."""
    before = extension.student
    sums = {name: getattr(before, name) + getattr(record, name) for name in ("steps", "tokens", "flops", "seconds")}
    return record.model_copy(update={**sums, "extensions": extension.number})


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
    key = f"stages[{ladder.stages.index(stage)}].student" if stage in ladder.stages else f"{stage.name}.student"

    def make(teacher: nn.Module | None) -> nn.Module:
        from models.students import make_student

        assert teacher is not None
        model = make_student(stage.student, teacher, interface, seed, key)
        own = sum(p.numel() for p in model.parameters())
        if own > parent.parameters:
            raise larger(f"{key}.shape", stage.name, own, parent.name, parent.parameters)
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
