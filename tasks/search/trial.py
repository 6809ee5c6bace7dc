"""Train and judge the students of a trial; as a program, of one trial a line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf.errors import LadderError, TrainingDiverged, UserError
from conf.home import home
from conf.schema.ladder import Ladder
from models.base.device import precision_of
from models.data.corpus import SplitName
from tasks.evaluation.evaluate import evaluate_model
from tasks.records.base import Record
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.cluster.localise import data_here, model_here
from tasks.runtime.cluster.program import answer_lines
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.training.student import train_student


class TrialJob(Record):
    """Stages to train in turn, below finished models, and the split on which the last student is judged; None: it is not."""

    ladder: dict[str, Any]
    stages: tuple[str, ...]
    lineage: tuple[StageRecord, ...]
    data: DataRecord
    context: Context
    split: SplitName | None = "valid"


class TrialOutcome(Record):
    """The students of a job, the last with its figures.

    Attributes:
        students: In their order; empty where there are none.
        seconds: That they took, their evaluation included.
        refused: Why the settings cannot be trained.
        local: Whether another machine might take them: the reason is a message to the user, and no training that diverged.
        failed: Why a worker could not train them, whatever the settings.
    """

    students: tuple[StageRecord, ...] = ()
    seconds: float = 0.0
    refused: str | None = None
    local: bool = False
    failed: str | None = None

    @property
    def parameters(self) -> int:
        """Of the last student."""
        return self.students[-1].parameters


def job_of(
    ladder: Ladder, stages: Sequence[str], lineage: Sequence[StageRecord], inputs: StageInputs, split: SplitName | None = "valid"
) -> TrialJob:
    """A job without a record in MLflow, samples, tasks and further data: a trial's figures are those of the metric alone."""
    evaluation = ladder.evaluation.model_copy(update={"samples": 0, "tasks": (), "also": {}})
    return TrialJob(
        ladder=ladder.model_copy(update={"evaluation": evaluation}).model_dump(mode="json"),
        stages=tuple(stages),
        lineage=tuple(lineage),
        data=inputs.data.model_copy(update={"also": {}}),
        context=inputs.context.model_copy(update={"mlflow_run_id": None}),
        split=split,
    )


def here(job: TrialJob) -> TrialJob:
    """The job with folders of this machine; of one whose home this machine does not see, its own home.

    Raises:
        LadderError: Data or a model cannot be found.
    """
    context = job.context if Path(job.context.home).is_dir() else job.context.model_copy(update={"home": str(home().root)})
    lineage = tuple(model_here(model, context) for model in job.lineage)
    return job.model_copy(update={"context": context, "data": data_here(job.data, context), "lineage": lineage})


def train_trial(job: TrialJob) -> TrialOutcome:
    """Find or train the students of a job, and judge the last one."""
    ladder, began = Ladder.model_validate(job.ladder), time.monotonic()
    inputs, lineage = StageInputs(ladder, job.data, job.context), list(job.lineage)
    try:
        for stage in (stage for stage in ladder.stages if stage.name in job.stages):
            lineage.append(train_student(stage, lineage, inputs))
    except (UserError, TrainingDiverged) as error:
        seconds, local = time.monotonic() - began, isinstance(error, UserError)
        return TrialOutcome(refused=str(error).partition("\n")[0], local=local, seconds=seconds)
    if job.split is not None:
        lineage[-1] = evaluate_model(lineage[-1], [], inputs, precision_of(ladder, ladder.stages[-1].training), job.split)
    return TrialOutcome(students=tuple(lineage[len(job.lineage) :]), seconds=time.monotonic() - began)


def answer(line: str) -> str:
    """The outcome of a job, or its error, both as JSON."""
    try:
        outcome = train_trial(here(TrialJob.model_validate_json(line)))
    except LadderError as error:
        outcome = TrialOutcome(failed=str(error))
    return outcome.model_dump_json()


if __name__ == "__main__":
    answer_lines(answer)
