"""Checks across the parts of a ladder: weights, evaluation, vocabularies, exports."""

from __future__ import annotations

from collections.abc import Sequence

from conf.schema.data import Data, Tokenizer, has_rationales, sources_for
from conf.schema.measures.evaluation import Evaluation
from conf.schema.shipping.exports import Export
from conf.schema.stage.stage import Stage
from conf.schema.teacher import AnswersTeacher, Teacher
from conf.schema.workloads import answers_in_ids


def check_class_weights(workload: str, teacher: Teacher) -> None:
    """Refuse weights of classes where there are none.

    Raises:
        ValueError: Naming the setting.
    """
    if answers_in_ids(workload) and teacher.source != "answers" and teacher.class_weights != "none":
        raise ValueError(
            f"teacher.class_weights: got {teacher.class_weights!r}; allowed: none, for {workload}; weights of classes are "
            "for classification. Leave it out."
        )


def check_rationales(workload: str, data: Data, teacher: Teacher, stages: Sequence[Stage]) -> None:
    """Refuse rationales of other workloads, and weights of rationales that no data have.

    Raises:
        ValueError: Naming the setting.
    """
    if has_rationales(data) and workload != "causal-lm":
        raise ValueError(f"data.columns.rationale: got some; allowed: none, for workload {workload}. Leave it out.")
    generate = data.generate
    if generate is not None and generate.rationale_before is not None and not has_rationales(data, own=True):
        given = f"got {generate.rationale_before!r}; allowed: with data.columns.rationale"
        raise ValueError(f"data.generate.rationale_before: {given}. Name the column, or leave it out.")
    if has_rationales(data):
        return
    weights = {f"stages[{index}].objective.rationale": stage.objective.rationale for index, stage in enumerate(stages)}
    weights["teacher.rationale"] = None if isinstance(teacher, AnswersTeacher) else teacher.rationale
    for key, weight in weights.items():
        if weight is not None:
            raise ValueError(f"{key}: got {weight:g}; allowed: with data.columns.rationale. Name the column, or leave it out.")


def check_evaluation(workload: str, evaluation: Evaluation, stages: Sequence[Stage]) -> None:
    """Refuse tasks and further data that the workload lacks, and gates that ask for what is not measured.

    Raises:
        ValueError: Naming the setting.
    """
    if evaluation.tasks and workload != "causal-lm":
        raise ValueError(f"evaluation.tasks: got {list(evaluation.tasks)}; allowed: none, for workload {workload}. Leave it out.")
    for index, stage in enumerate(stages):
        if stage.gate.max_task_drop is not None and not evaluation.tasks:
            raise ValueError(f"stages[{index}].gate.max_task_drop: needs tasks; allowed: with evaluation.tasks. Name one there.")
    for name, source in evaluation.also.items():
        if workload not in source.workloads:
            allowed = " or ".join(sources_for(workload))
            raise ValueError(
                f"evaluation.also.{name}.source: got {source.source!r}; allowed: {allowed}, for workload {workload}. Change it."
            )
    for index, stage in enumerate(stages):
        if evaluation.also and stage.student.vocabulary == "used":
            raise ValueError(
                f"stages[{index}].student.vocabulary: got 'used'; allowed: teacher, with evaluation.also, which may need other ids. "
                "Leave one of them out."
            )
        if stage.gate.min_also_retention is not None and not evaluation.also:
            raise ValueError(
                f"stages[{index}].gate.min_also_retention: needs other data; allowed: with evaluation.also. Name a source there."
            )


def check_vocabularies(workload: str, tokenizer: Tokenizer, stages: Sequence[Stage]) -> None:
    """Refuse a vocabulary that grows from teacher to student.

    Raises:
        ValueError: Naming the setting.
    """
    smaller: str | None = None
    for index, stage in enumerate(stages):
        key, choice = f"stages[{index}].student.vocabulary", stage.student.vocabulary
        if choice == "used" and (workload != "causal-lm" or tokenizer.kind == "bytes"):
            raise ValueError(f"{key}: got 'used'; allowed: teacher, but for causal-lm with a tokenizer of merges. Leave it out.")
        if choice == "teacher" and smaller is not None:
            raise ValueError(
                f"{key}: got 'teacher'; allowed: used, since the stage {smaller} above has only the ids that the data use. "
                "A student's vocabulary cannot be larger than its teacher's."
            )
        smaller = stage.name if choice == "used" else smaller


def check_exports(workload: str, exports: Sequence[Export]) -> None:
    """Refuse a format that is named twice, or that the workload lacks.

    Raises:
        ValueError: Naming the setting.
    """
    names = [export.name for export in exports]
    for index, export in enumerate(exports):
        if export.name in names[:index]:
            raise ValueError(f"exports[{index}].format: got {export.name!r}; allowed: each format once. Leave one out.")
        if export.format == "gguf" and workload != "causal-lm":
            raise ValueError(f"exports[{index}].format: got 'gguf'; allowed: hf, onnx or onnx-int8, for workload {workload}. Change it.")
