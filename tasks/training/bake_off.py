"""Trials that choose a stage's teacher among its ancestors.

Each ancestor teaches the stage's student, from the same first weights and on the same batches, for a whole short schedule, and the student
with the best score on the validation split names the teacher. A stage with one ancestor needs no trial. Trials and choice are in the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from conf.schema.workloads import answers_in_ids
from models.base.numerics import NUMERICS
from models.base.quality import direction
from models.data.corpus import CorpusInfo
from tasks.evaluation.evaluate import SPLIT
from tasks.records.choice.teacher import TeacherChoice, TeacherTrial
from tasks.records.run import StageRecord
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.cached import Entry
from tasks.store.fingerprint import fingerprint
from tasks.training.signals.signal_policy import settled_signals
from tasks.training.teaching import trial_steps

KIND, FILE = "choice", "choice.json"  # part of the store, and the file in its folders


def trial_stage(stage: Stage, ladder: Ladder, info: CorpusInfo | None) -> Stage:
    """The stage as its trials train it: fewer steps, none of them left out; signals as they are chosen for the stage itself."""
    changed = {"steps": trial_steps(stage), "patience": None}
    return stage.model_copy(
        update={
            "training": stage.training.model_copy(update=changed),
            "signals": settled_signals(stage, ladder, info),
        }
    )


def choice_entry(stage: Stage, ladder: Ladder, trials: Sequence[dict[str, Any]], parent: str) -> Entry:
    """The place of a choice in the store.

    Args:
        stage: As it is written.
        ladder: The whole ladder.
        trials: Identities of the trials, that of the nearest ancestor first.
        parent: Hash of the weights of the stage's parent, with which `ladder clean` keeps the choice.
    """
    identity = {
        "kind": KIND,
        "numerics": NUMERICS,
        "weights": parent,
        "trials": [fingerprint(each) for each in trials],
        "split": SPLIT,
        "examples": ladder.evaluation.examples,
    }
    return Entry(KIND, stage.name, identity, read_choice)


def read_choice(folder: Path) -> TeacherChoice:
    """The choice in a folder of the store.

    Raises:
        OSError: It is missing.
        ValueError: It is damaged.
    """
    return TeacherChoice.model_validate_json((folder / FILE).read_bytes())


def chosen_of(trials: Sequence[TeacherTrial], metric: str, steps: int) -> TeacherChoice:
    """The choice: the best score, of equal ones the lower negative log-likelihood, then the nearest ancestor."""
    best = min(trials, key=lambda trial: (-direction(metric) * trial.score, trial.nll))
    return TeacherChoice(place=best.place, metric=metric, steps=steps, trials=tuple(trials))


def with_costs(record: StageRecord, choice: TeacherChoice) -> StageRecord:
    """The record of a student with its choice of a teacher, and with the costs of the trials."""
    flops, seconds, answers = (sum(getattr(each, name) for each in choice.trials) for name in ("flops", "seconds", "signal_seconds"))
    whole = None if record.all_signal_seconds is None else record.all_signal_seconds + answers
    sums = {"flops": record.flops + flops, "seconds": record.seconds + seconds, "signal_seconds": record.signal_seconds + answers}
    return record.model_copy(update={**sums, "all_signal_seconds": whole, "choice": choice})


def trial_metric(ladder: Ladder) -> str:
    """The metric that trials are judged by."""
    return "bits_per_byte" if answers_in_ids(ladder.workload) else "accuracy"


def quiet_inputs(inputs: StageInputs) -> StageInputs:
    """The inputs without samples, tasks and further held-out data, which a trial needs not."""
    evaluation = inputs.ladder.evaluation.model_copy(update={"samples": 0, "tasks": ()})
    ladder = inputs.ladder.model_copy(update={"evaluation": evaluation})
    return replace(inputs, ladder=ladder, data=inputs.data.model_copy(update={"also": {}}))


def trial_record(teacher: str, place: int, judged: StageRecord, metric: str) -> TeacherTrial:
    """The record of a trial, from the record of its student after evaluation."""
    return TeacherTrial(
        teacher=teacher,
        place=place,
        score=judged.metrics[metric],
        nll=judged.metrics["nll"],
        fingerprint=judged.fingerprint,
        flops=judged.flops,
        seconds=judged.seconds,
        signal_seconds=judged.signal_seconds,
    )
