"""Section of the teachers that trials chose: scores of each model above."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.records.choice.teacher import TeacherChoice, TeacherTrial
from tasks.records.format import operations, percent
from tasks.records.run import RunRecord

HEADERS = ["student", "teacher", "steps", "score", "FLOPs", "outcome"]


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The trials of every stage that had a choice of teachers; None where no stage had one."""
    rows = [_row(stage.name, trial, stage.choice) for stage in record.stages if stage.choice for trial in stage.choice.trials]
    if not rows:
        return None
    metric = next(stage.choice.metric for stage in record.stages if stage.choice)
    score = "bits per byte (less is better)" if metric == "bits_per_byte" else "accuracy"
    note = (
        "Each model above taught the student for a whole short schedule, from the same first weights and on the same batches. "
        f"Score: {score} on the validation split. The price of the trials is in that of the student."
    )
    return {
        "heading": "Choice of teachers",
        "tables": [{"headers": HEADERS, "rows": rows, "words": ["student", "teacher", "outcome"]}],
        "note": note,
    }


def _row(student: str, trial: TeacherTrial, choice: TeacherChoice) -> list[str]:
    score = f"{trial.score:.3f}" if choice.metric == "bits_per_byte" else percent(trial.score)
    outcome = "teaches" if trial.place == choice.place else ""
    return [student, trial.teacher, f"{choice.steps:,}", score, operations(trial.flops), outcome]
