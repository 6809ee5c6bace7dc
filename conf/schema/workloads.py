"""Traits of workloads: what models read, and how they answer."""

from __future__ import annotations

from conf.errors import UserError

IN_IDS = ("causal-lm", "image-text")
WITH_PICTURES = ("image-classification", "image-text")
WITH_CLASSES = ("sequence-classification", "image-classification")


UNSERVED = ("image-text", "embedding")  # whose students are used by their own libraries or MLflow alone


def refuse_unserved(workload: str, key: str, value: object, what: str) -> None:
    """Refuse to serve, export, measure or watch a model of a workload for which that is not there.

    Args:
        workload: The model's.
        key: Dotted key or option to blame.
        value: The value to show.
        what: In the message, such as `an export`.

    Raises:
        UserError: It is one of those.
    """
    if workload in UNSERVED:
        remedy = "Its folder, and its record in MLflow, load with transformers."
        raise UserError.about(key, value, f"{what} of another workload than {workload}", remedy)


def answers_in_ids(workload: str) -> bool:
    """Whether models of a workload predict ids of a vocabulary, each from those before it; else an example has one answer."""
    return workload in IN_IDS


def reads_pictures(workload: str) -> bool:
    """Whether models of a workload take pictures, alone or beside a text."""
    return workload in WITH_PICTURES


def has_classes(workload: str) -> bool:
    """Whether rows have a class, which models of a workload tell."""
    return workload in WITH_CLASSES
