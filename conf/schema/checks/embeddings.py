"""Checks and defaults of ladders of embeddings, which learn from teachers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from conf.schema.stage.objective import WHOLE_BATCH
from conf.schema.workloads import makes_embeddings

if TYPE_CHECKING:
    from conf.schema.data import CommonData
    from conf.schema.stage.stage import Stage
    from conf.schema.teacher import AnswersTeacher, CheckpointTeacher, TrainedTeacher

DEFAULT_KIND = "cosine"
ALPHAS = (0.9, 1.0)  # the default of all workloads, and the weight that a row without label has in any case


def with_embedding_defaults(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a ladder with `cosine` in each stage that names no kind of objective: the usual one compares probabilities."""
    stages = plain.get("stages")
    if not isinstance(stages, list | tuple):
        return dict(plain)
    return {**plain, "stages": [_with_kind(stage) for stage in stages]}


def _with_kind(stage: Any) -> Any:
    if not isinstance(stage, Mapping):
        return stage
    objective = stage.get("objective") or {}
    if not isinstance(objective, Mapping) or "kind" in objective:
        return stage
    return {**stage, "objective": {"kind": DEFAULT_KIND, **objective}}


def check_embedding(
    workload: str, data: CommonData, teacher: TrainedTeacher | CheckpointTeacher | AnswersTeacher, stages: Sequence[Stage], route: str
) -> None:
    """Refuse settings that embeddings do not have: labels, trained or stored teachers, and everything that needs probabilities.

    Raises:
        ValueError: Naming the setting, the allowed values and the remedy.
    """
    if workload != "embedding" and data.pairs is not None:
        raise ValueError(f"data.pairs: got some; allowed: none, for workload {workload}; pairs judge embeddings. Leave it out.")
    if not makes_embeddings(workload):
        return
    if teacher.source != "checkpoint":
        raise ValueError(
            f"teacher.source: got {teacher.source!r}; allowed: checkpoint, for workload {workload}: only an encoder has embeddings to "
            "learn from. Name one."
        )
    for name, value, usual in (("training", teacher.training, None), ("classes", teacher.classes, None)):
        if value != usual:
            raise ValueError(f"teacher.{name}: got some; allowed: none, for workload {workload}, which has no labels. Leave it out.")
    for name, value in (("max_labels", data.max_labels), ("unlabelled", data.unlabelled), ("classes", data.classes)):
        if value:
            raise ValueError(f"data.{name}: got {value}; allowed: none, for workload {workload}, which has no labels. Leave it out.")
    if route not in ("as-written", "direct", "self"):
        raise ValueError(
            f"route: got {route!r}; allowed: as-written, direct or self, for workload {workload}, where no "
            "answer is right or wrong. Change it."
        )
    for index, stage in enumerate(stages):
        _check_stage(stage, f"stages[{index}]", f"for workload {workload}")


def _check_stage(stage: Stage, key: str, why: str) -> None:
    objective, alpha = stage.objective, stage.objective.alpha
    refused = [
        ("teachers", stage.teachers, stage.teachers in (("none",), ("best",), ("checkpoints",)), "parent, root, ancestors or rising"),
        ("members", stage.members, stage.members > 1, "1"),
        ("signals.source", stage.signals.source, stage.signals.source == "cached", "live or auto"),
        ("objective.alpha", alpha.start, alpha.kind != "constant" or alpha.start not in ALPHAS, "1, as there are no labels,"),
        ("objective.wrong_teacher", objective.wrong_teacher, objective.wrong_teacher != "none", "none"),
        ("objective.class_weights", objective.class_weights, objective.class_weights != "none", "none"),
    ]
    for name, value, wrong, allowed in refused:
        if wrong:
            raise ValueError(f"{key}.{name}: got {value!r}; allowed: {allowed} {why}. Change it.")
    if objective.kind in WHOLE_BATCH:
        training, kind = stage.training, objective.kind
        if training.accumulation > 1:
            raise ValueError(
                f"{key}.training.accumulation: got {training.accumulation}; allowed: 1, for objective.kind {kind}, which compares each row "
                "with all others of its batch. Leave it out, or lower batch_size."
            )
        if training.batch_size < 2:
            raise ValueError(
                f"{key}.training.batch_size: got 1; allowed: 2 or more, for objective.kind {kind}, which compares rows. Raise it."
            )
