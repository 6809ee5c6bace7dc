"""Refuse shapes, data, tokenizers and vision parts that do not suit a workload."""

from __future__ import annotations

from collections.abc import Sequence

from conf.schema.data import Data, Tokenizer, rounds_of, sources_for
from conf.schema.route import Route
from conf.schema.stage.stage import Stage
from conf.schema.teacher import Teacher
from conf.schema.workloads import answers_in_ids, has_classes

FAMILIES: dict[str, tuple[str, ...]] = {
    "causal-lm": ("llama",),
    "sequence-classification": ("bert", "llama"),
    "image-classification": ("vit",),
    "image-text": (),
    "embedding": ("bert", "llama"),
    "image-text-embedding": (),
}


def check_workload(workload: str, data: Data, tokenizer: Tokenizer, teacher: Teacher, stages: Sequence[Stage], route: Route) -> None:
    """Refuse families of shapes, data and a tokenizer that the workload does not have.

    Raises:
        ValueError: Naming the setting.
    """
    _check_families(workload, teacher, stages)
    _check_data(workload, data, teacher, route)
    _check_tokenizer(workload, tokenizer, teacher)


def check_vision(workload: str, stages: Sequence[Stage]) -> None:
    """Refuse a choice of the vision part, where models read no pictures with texts.

    Raises:
        ValueError: Naming the setting.
    """
    for index, stage in enumerate(stages):
        if stage.student.vision != "own" and workload not in ("image-text", "image-text-embedding"):
            found = stage.student.vision
            raise ValueError(f"stages[{index}].student.vision: got {found!r}; allowed: own, for workload {workload}. Leave it out.")


def _check_families(workload: str, teacher: Teacher, stages: Sequence[Stage]) -> None:
    shapes = {f"stages[{i}].student.shape": stage.student.shape for i, stage in enumerate(stages)}
    shapes["teacher.shape"] = teacher.shape
    for key, shape in shapes.items():
        if shape is not None and shape.family not in FAMILIES[workload]:
            allowed = " or ".join(FAMILIES[workload]) or "a student's config or a checkpoint, but no shape"
            raise ValueError(f"{key}.family: got {shape.family!r}; allowed: {allowed}, for workload {workload}. Change one of them.")


def _check_data(workload: str, data: Data, teacher: Teacher, route: Route) -> None:
    if workload not in data.workloads:
        allowed = " or ".join(sources_for(workload))
        raise ValueError(f"data.source: got {data.source!r}; allowed: {allowed}, for workload {workload}. Change one of them.")
    if data.transfer and data.image_shape is not None:
        raise ValueError(f"data.transfer: got some; allowed: none, for data.source {data.source}, whose images are no files. Leave it out.")
    if data.generate is not None and workload != "causal-lm":
        raise ValueError(f"data.generate: got some; allowed: none, for workload {workload}. Leave it out.")
    if data.generate is not None and data.generate.endpoint is None and teacher.source == "answers":
        raise ValueError("data.generate.endpoint: got none; allowed: one, for teacher.source answers, which writes nothing. Set it.")
    if rounds_of(data) > 1 and route == "auto":
        raise ValueError("data.generate.rounds: got several; allowed: 1, with route auto, whose stages are chosen later. Change one.")
    if answers_in_ids(workload) and data.max_labels is not None:
        raise ValueError(f"data.max_labels: got {data.max_labels}; allowed: none, for workload {workload}. Leave it out.")
    columns = getattr(data, "columns", None)
    if not answers_in_ids(workload) and columns is not None and columns.conversations:
        usual = "text and label" if has_classes(workload) else "text"
        raise ValueError(f"data.columns: got conversations; allowed: {usual}, for workload {workload}. Leave them out.")
    if workload != "causal-lm" and not data.cross_document_attention:
        raise ValueError(f"data.cross_document_attention: got false; allowed: true, for workload {workload}. Leave it out.")


def _check_tokenizer(workload: str, tokenizer: Tokenizer, teacher: Teacher) -> None:
    if tokenizer.kind == "folder" and workload != "causal-lm":
        raise ValueError(f"tokenizer.kind: got 'folder'; allowed: bytes, bpe or teacher, for workload {workload}. Change it.")
    brings = teacher.source == "checkpoint" or (teacher.source == "answers" and teacher.tokenizer is not None)
    if tokenizer.kind == "teacher" and not brings and workload != "image-classification":
        raise ValueError(
            "tokenizer.kind: got 'teacher'; allowed: bytes or bpe, for a teacher that is trained here. "
            "Only teacher.source checkpoint, and answers with teacher.tokenizer, bring a tokenizer."
        )
