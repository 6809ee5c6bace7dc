"""Refuse settings that a root teacher of stored answers cannot serve."""

from __future__ import annotations

from collections.abc import Sequence

from conf.schema.data import Data
from conf.schema.measures.evaluation import Evaluation
from conf.schema.stage.stage import Stage
from conf.schema.teacher import AnswersTeacher


def check_answers(teacher: AnswersTeacher, workload: str, data: Data, evaluation: Evaluation, stages: Sequence[Stage]) -> None:
    """Refuse settings that need a model, where the root teacher is a file of answers.

    Raises:
        ValueError: Naming the setting.
    """
    if workload != "causal-lm" and len(teacher.classes) < 2:
        raise ValueError(f"teacher.classes: got {list(teacher.classes)}; allowed: two or more names. Name the classes.")
    if evaluation.also:
        raise ValueError("evaluation.also: got some; allowed: none, with answers, which are to the ladder's data alone. Leave it out.")
    if stages[0].gate.policy == "insert":
        raise ValueError(
            "stages[0].gate.policy: got 'insert'; allowed: any other, below answers. They have no architecture that lies between."
        )
    if workload == "causal-lm":
        _check_token_answers(teacher, data, evaluation, stages)
    for index, stage in enumerate(stages):
        if index == 0 and stage.student.initialisation != "random":
            raise ValueError(
                f"stages[0].student.initialisation: got {stage.student.initialisation!r}; allowed: random, below answers. "
                "They have no weights to begin with."
            )
        if is_by_root(stage, index == 0) and stage.objective.features:
            raise ValueError(f"stages[{index}].objective.features: got some; allowed: none, below answers. They have no hidden states.")


def is_by_root(stage: Stage, first: bool) -> bool:
    """Whether the root teaches a stage; `first`: it is the parent, too."""
    return stage.teachers != ("none",) and (first or bool({"root", "ancestors", "rising", "best"} & set(stage.teachers)))


def _check_token_answers(teacher: AnswersTeacher, data: Data, evaluation: Evaluation, stages: Sequence[Stage]) -> None:
    """Refuse settings that answers to documents of a language model cannot serve."""
    if teacher.classes:
        raise ValueError(f"teacher.classes: got {list(teacher.classes)}; allowed: none, for causal-lm. Leave it out.")
    columns = getattr(data, "columns", None)
    if columns is not None and columns.conversations:
        raise ValueError("data.columns: got conversations; allowed: text, with answers. They are to whole texts.")
    if evaluation.tasks:
        raise ValueError("evaluation.tasks: got some; allowed: none, with answers, which no task of lm-eval can ask. Leave it out.")
    for index, stage in enumerate(stages):
        if stage.teachers == ("best",) and index:
            raise ValueError(
                f"stages[{index}].teachers: got 'best'; allowed: any other, with answers to documents, which stand for the root alone. "
                "Choose one."
            )
        if stage.student.vocabulary == "used":
            raise ValueError(
                f"stages[{index}].student.vocabulary: got 'used'; allowed: teacher, with answers, whose ids are those of the data."
            )
        if is_by_root(stage, index == 0) and stage.signals.source == "cached" and stage.signals.kind != "top-k":
            raise ValueError(
                f"stages[{index}].signals.kind: got {stage.signals.kind!r}; allowed: top-k, below answers, which list some ids of each "
                "position and are the cache themselves. Change it, or leave signals out."
            )
