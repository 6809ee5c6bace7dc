"""Refuse settings that a root teacher of stored answers cannot serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conf.schema.teacher import AnswersTeacher

if TYPE_CHECKING:
    from conf.schema.ladder import Ladder


def check_answers(ladder: Ladder) -> None:
    """Refuse settings that need a model, where the root teacher is a file of answers.

    Raises:
        ValueError: Naming the setting.
    """
    if ladder.teacher.source != "answers":
        return
    if ladder.workload != "causal-lm" and len(ladder.teacher.classes) < 2:
        raise ValueError(f"teacher.classes: got {list(ladder.teacher.classes)}; allowed: two or more names. Name the classes.")
    if ladder.evaluation.also:
        raise ValueError("evaluation.also: got some; allowed: none, with answers, which are to the ladder's data alone. Leave it out.")
    if ladder.stages[0].gate.policy == "insert":
        raise ValueError(
            "stages[0].gate.policy: got 'insert'; allowed: any other, below answers. They have no architecture that lies between."
        )
    if ladder.workload == "causal-lm":
        _check_token_answers(ladder)
    for index, stage in enumerate(ladder.stages):
        by_root = index == 0 or {"root", "ancestors"} & set(stage.teachers)
        if index == 0 and stage.student.initialisation != "random":
            raise ValueError(
                f"stages[0].student.initialisation: got {stage.student.initialisation!r}; allowed: random, below answers. "
                "They have no weights to begin with."
            )
        if by_root and stage.objective.features:
            raise ValueError(f"stages[{index}].objective.features: got some; allowed: none, below answers. They have no hidden states.")


def _check_token_answers(ladder: Ladder) -> None:
    """Refuse settings that answers to documents of a language model cannot serve."""
    if isinstance(ladder.teacher, AnswersTeacher) and ladder.teacher.classes:
        raise ValueError(f"teacher.classes: got {list(ladder.teacher.classes)}; allowed: none, for causal-lm. Leave it out.")
    columns = getattr(ladder.data, "columns", None)
    if columns is not None and columns.conversations:
        raise ValueError("data.columns: got conversations; allowed: text, with answers. They are to whole texts.")
    if ladder.evaluation.tasks:
        raise ValueError("evaluation.tasks: got some; allowed: none, with answers, which no task of lm-eval can ask. Leave it out.")
    for index, stage in enumerate(ladder.stages):
        if stage.student.vocabulary == "used":
            raise ValueError(
                f"stages[{index}].student.vocabulary: got 'used'; allowed: teacher, with answers, whose ids are those of the data."
            )
        if ladder.has_token_answers(stage) and stage.signals.source == "cached" and stage.signals.kind != "top-k":
            raise ValueError(
                f"stages[{index}].signals.kind: got {stage.signals.kind!r}; allowed: top-k, below answers, which list some ids of each "
                "position and are the cache themselves. Change it, or leave signals out."
            )
