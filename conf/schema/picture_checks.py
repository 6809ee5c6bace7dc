"""Refuse settings that do not suit models that read pictures with texts."""

from __future__ import annotations

from collections.abc import Sequence

from conf.schema.data import Columns, Data, Tokenizer
from conf.schema.shipping.exports import Export
from conf.schema.stage.stage import Stage
from conf.schema.teacher import AnswersTeacher, CheckpointTeacher, TrainedTeacher

FOR = "for workload image-text"


def check_image_text(
    teacher: TrainedTeacher | CheckpointTeacher | AnswersTeacher,
    tokenizer: Tokenizer,
    data: Data,
    exports: Sequence[Export],
    stages: Sequence[Stage],
) -> None:
    """Refuse settings that do not suit the workload image-text.

    Raises:
        ValueError: Naming the setting.
    """
    if teacher.source != "checkpoint":
        raise ValueError(
            f"teacher.source: got {teacher.source!r}; allowed: checkpoint, {FOR}, whose pictures a processor reads. Name a folder with "
            "model and processor; teacher.training trains it on."
        )
    if tokenizer.kind != "teacher":
        raise ValueError(f"tokenizer.kind: got {tokenizer.kind!r}; allowed: teacher, {FOR}, which has that of the processor. Set it.")
    columns = getattr(data, "columns", None) or Columns()
    if columns.prompt is None:
        raise ValueError(
            f"data.columns: got no prompt; allowed: prompt and completion, {FOR}, beside image. Name the columns of question and answer."
        )
    if getattr(data, "channels", "auto") == 1:
        raise ValueError(f"data.channels: got 1; allowed: auto or 3, {FOR}. Leave it out.")
    if exports:
        raise ValueError(f"exports: got {exports[0].name!r}; allowed: none, {FOR}: the student's folder is served as it is. Leave it out.")
    for index, stage in enumerate(stages):
        _check_stage(stage, f"stages[{index}]")


def _check_stage(stage: Stage, key: str) -> None:
    student = stage.student
    if student.source == "new" and student.config is None:
        given = "parameters" if student.parameters is not None else "shape"
        raise ValueError(f"{key}.student.{given}: got some; allowed: config, or source: checkpoint with path, {FOR}. Describe the student.")
    if student.initialisation != "random":
        raise ValueError(
            f"{key}.student.initialisation: got {student.initialisation!r}; allowed: random, {FOR}; student.vision keeps the teacher's "
            "vision part. Leave it out."
        )
    if stage.objective.features:
        raise ValueError(f"{key}.objective.features: got some; allowed: none, {FOR}. Leave it out.")
    if stage.gate.policy == "insert":
        raise ValueError(f"{key}.gate.policy: got 'insert'; allowed: any other, {FOR}, whose students have no sizes between. Change it.")
