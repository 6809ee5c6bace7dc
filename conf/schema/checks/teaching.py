"""Checks of teacher curricula, early checkpoints and members of a stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from conf.errors import UserError
from conf.schema.stage.compatibility import check_members

if TYPE_CHECKING:
    from conf.schema.stage.stage import Stage
    from conf.schema.teacher import AnswersTeacher, CheckpointTeacher, TrainedTeacher

UNCHANGED_LENGTH = ("stop", "warn", "insert")  # policies of a gate that train no student longer
GROUPED = (
    ("parent",),
    ("root",),
    ("rising",),
    ("checkpoints",),
    ("best",),
    ("none",),
)  # choices of teachers of which one is asked in a step


def check_teaching(teacher: TrainedTeacher | CheckpointTeacher | AnswersTeacher, stages: Sequence[Stage]) -> None:
    """Refuse a hand-over without teachers that take turns, checkpoints that nobody keeps, and members that could not teach.

    Raises:
        UserError: Naming the setting.
    """
    kept = len(teacher.keep) if teacher.source == "train" else 0
    for index, stage in enumerate(stages):
        _check_checkpoints(teacher.source, kept, stage, f"stages[{index}].teachers")
        _check_handover(stages[: index + 1], kept, f"stages[{index}].objective.handover")
        _check_members(stage, index == len(stages) - 1, f"stages[{index}]")
        _check_taught_by_members(stages, index)


def _check_checkpoints(source: str, kept: int, stage: Stage, key: str) -> None:
    if stage.teachers != ("checkpoints",):
        return
    if source != "train":
        allowed = f"another choice, for teacher.source {source}, of which no early checkpoint is here"
        raise UserError.about(key, "checkpoints", allowed, "Name another, or train the teacher here.")
    if not kept:
        raise UserError.about(key, "checkpoints", "checkpoints, with teacher.keep", "Set teacher.keep, such as [0.1, 0.3].")


def _check_handover(stages: Sequence[Stage], kept: int, key: str) -> None:
    """`stages`: the stage, last, and those above it."""
    stage, handover = stages[-1], stages[-1].objective.handover
    if not handover:
        return
    if not stage.hands_over:
        raise UserError.about(key, list(handover), "none, but for teachers rising or checkpoints, which take turns", "Leave it out.")
    teachers = kept + 1 if stage.teachers == ("checkpoints",) else len(stages)
    if len(handover) != teachers:
        raise UserError.about(key, list(handover), f"{teachers} numbers, one for each teacher", "Correct it, or leave it out.")
    if stage.teachers == ("rising",) and any(each.gate.policy == "insert" for each in stages):
        allowed = "none, where a gate may insert further teachers (gate.policy: insert)"
        raise UserError.about(key, list(handover), allowed, "Leave one of them out.")


def _check_members(stage: Stage, last: bool, key: str) -> None:
    if stage.members == 1:
        return
    if last:
        raise UserError.about(f"{key}.members", stage.members, "1 for the last stage, which teaches no other", "Leave it out.")
    if stage.training.patience is not None:
        allowed = "none, with members, who train equally long"
        raise UserError.about(f"{key}.training.patience", stage.training.patience, allowed, "Leave one of them out.")
    if stage.gate.policy not in UNCHANGED_LENGTH:
        allowed = f"{', '.join(UNCHANGED_LENGTH)}, with members, who train equally long"
        raise UserError.about(f"{key}.gate.policy", stage.gate.policy, allowed, "Change it, or leave members out.")


def _check_taught_by_members(stages: Sequence[Stage], index: int) -> None:
    """Refuse choices of teachers, signals and divergences for which several models are not one teacher."""
    stage, above = stages[index], stages[:index]
    asked = above[-1:] if stage.teachers in (("parent",), ("root", "parent")) else above
    grouped = [each for each in asked if each.members > 1]
    if not grouped or stage.teachers in (("root",), ("checkpoints",), ("none",)):
        return
    if stage.teachers not in GROUPED:
        allowed = f"[parent], [root] or rising, below {grouped[0].name} with its {grouped[0].members} members"
        raise UserError.about(f"stages[{index}].teachers", ", ".join(stage.teachers), allowed, "Change one of them.")
    # auto gives way to live; not for an assistant that a gate inserts, of whose teachers the choice of signals does not know
    cached = stage.signals.source == "cached" or (stage.signals.source == "auto" and stage.gate.policy == "insert")
    check_members(stage.objective, stage.signals.kind if cached else "live", key=f"stages[{index}]")
