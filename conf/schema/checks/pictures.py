"""Refuse settings that do not suit models that read pictures with texts."""

from __future__ import annotations

from collections.abc import Sequence

from conf.schema.data import Data, Tokenizer
from conf.schema.shipping.exports import Export
from conf.schema.stage.stage import Stage
from conf.schema.tables import Columns
from conf.schema.teacher import AnswersTeacher, CheckpointTeacher, TrainedTeacher


def check_image_text(
    workload: str,
    teacher: TrainedTeacher | CheckpointTeacher | AnswersTeacher,
    tokenizer: Tokenizer,
    data: Data,
    exports: Sequence[Export],
    stages: Sequence[Stage],
) -> None:
    """Refuse settings that do not suit the workloads image-text and image-text-embedding.

    Raises:
        ValueError: Naming the setting.
    """
    suits = f"for workload {workload}"
    if teacher.source != "checkpoint":
        raise ValueError(
            f"teacher.source: got {teacher.source!r}; allowed: checkpoint, {suits}, whose pictures a processor reads. Name a folder with "
            "model and processor; teacher.training trains it on."
        )
    if tokenizer.kind != "teacher":
        raise ValueError(f"tokenizer.kind: got {tokenizer.kind!r}; allowed: teacher, {suits}, which has that of the processor. Set it.")
    columns = getattr(data, "columns", None) or Columns()
    if workload == "image-text" and columns.prompt is None:
        raise ValueError(
            f"data.columns: got no prompt; allowed: prompt and completion, {suits}, beside image. Name the columns of question and answer."
        )
    if getattr(data, "channels", "auto") == 1:
        raise ValueError(f"data.channels: got 1; allowed: auto or 3, {suits}. Leave it out.")
    if exports:
        raise ValueError(f"exports: got {exports[0].name!r}; allowed: none, {suits}: a student is used as it is. Leave it out.")
    for index, stage in enumerate(stages):
        _check_stage(stage, f"stages[{index}]", suits)


def _check_stage(stage: Stage, key: str, suits: str) -> None:
    student = stage.student
    if student.source == "new" and student.config is None:
        given = "parameters" if student.parameters is not None else "shape"
        raise ValueError(f"{key}.student.{given}: got some; allowed: config, or source: checkpoint, {suits}. Describe it.")
    if student.initialisation != "random":
        raise ValueError(
            f"{key}.student.initialisation: got {student.initialisation!r}; allowed: random, {suits}; student.vision keeps the teacher's "
            "vision part. Leave it out."
        )
    if stage.objective.features:
        raise ValueError(f"{key}.objective.features: got some; allowed: none, {suits}. Leave it out.")
    if stage.gate.policy == "insert":
        raise ValueError(f"{key}.gate.policy: got 'insert'; allowed: any other, {suits}, whose students have no sizes between. Change it.")
