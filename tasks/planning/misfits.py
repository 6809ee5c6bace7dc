"""Misfits that a plan finds in weights and labels, within bounds."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from conf.schema.data import DatasetData, FilesData
from conf.schema.ladder import Ladder
from conf.schema.teacher import CheckpointTeacher
from conf.schema.workloads import has_classes
from models.architectures.checkpoint import check_finite
from models.base.files import weight_files
from models.data.classes import are_placeholders
from tasks.data.reading.label_look import look_at_labels
from tasks.data.reading.labels import as_teacher, class_ids
from tasks.records.format import percent
from tasks.runtime.runs.run_registry import Context
from tasks.teachers.teacher_source import NotConverted, is_local, resolve_checkpoint, teacher_classes

WEIGHT_BYTES = 256 << 20  # of each checkpoint


def check_weights(ladder: Ladder, context: Context) -> list[str]:
    """Refuse checkpoints on this machine that hold NaN or an infinity; a note where one is too large to be read as a whole.

    Raises:
        UserError: Naming the tensor.
    """
    folders: dict[str, Path] = {}
    teacher = ladder.teacher
    if isinstance(teacher, CheckpointTeacher) and is_local(teacher, context):
        with suppress(NotConverted):
            folders["teacher.path"] = resolve_checkpoint(teacher, context)
    for index, stage in enumerate(ladder.stages):
        if stage.student.source == "checkpoint" and stage.student.path is not None:
            folders[f"stages[{index}].student.path"] = Path(context.base, stage.student.path)
    notes = []
    for key, folder in folders.items():
        if weight_files(folder) and (share := check_finite(folder, key, WEIGHT_BYTES)) < 1:
            notes.append(f"{key}: looked for NaN in the first {percent(share)} of every tensor; the run looks at all")
    return notes


def check_labels(ladder: Ladder, context: Context) -> list[str]:
    """Refuse labels that are likely a mistake, and classes that are not the teacher's; a note where not all labels were looked at.

    Raises:
        UserError: As `class_ids` and `match_classes`.
    """
    data = ladder.data
    if not has_classes(ladder.workload) or not isinstance(data, FilesData | DatasetData):
        return []
    look = look_at_labels(data, ladder.workload, Path(context.base))
    if look is None or (not look.whole and not look.tally.counts):
        return []
    theirs = teacher_classes(ladder, context)
    names, labels = class_ids(look.tally, look.declared, data, len(theirs or ()), partial=not look.whole)
    if theirs and (look.whole or not (are_placeholders(theirs) or all(name.lstrip("-").isdigit() for name in names))):
        as_teacher(names, labels, theirs, numbered=bool(look.declared))
    rows = look.tally.counts.total() + look.tally.unlabelled
    return [] if look.whole else [f"labels: looked at the first {rows:,} rows; the run looks at all"]
