"""Traits of workloads: what models read, and how they answer."""

from __future__ import annotations

from conf.errors import UserError

IN_IDS = ("causal-lm", "image-text")
WITH_PICTURES = ("image-classification", "image-text", "image-text-embedding")
WITH_CLASSES = ("sequence-classification", "image-classification")


IN_EMBEDDINGS = ("embedding", "image-text-embedding")
# Workloads whose students are not served, exported or watched here -> what uses them.
UNSERVED = {"image-text": "transformers", "embedding": "sentence-transformers", "image-text-embedding": "transformers"}
UNTIMED = ("image-text", "image-text-embedding")  # whose speed is not measured
UNJUDGED = IN_EMBEDDINGS  # whose answers are neither right nor wrong, so that two models cannot be compared row by row


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
        remedy = f"Its folder loads with {UNSERVED[workload]}, and its record with MLflow."
        raise UserError.about(key, value, f"{what} of another workload than {workload}", remedy)


def refuse_unjudged(workload: str, key: str, value: object, what: str) -> None:
    """Refuse to compare models of a workload by rows that each of them answers rightly or wrongly.

    Args:
        workload: The models'.
        key: Dotted key or option to blame.
        value: The value to show.
        what: In the message, such as `a proof`.

    Raises:
        UserError: Its answers are neither.
    """
    if workload in UNJUDGED:
        allowed = f"{what} of a workload whose answers are right or wrong; those of {workload} are neither"
        raise UserError.about(key, value, allowed, "Compare two runs by their figures: `ladder compare RUN RUN`.")


def answers_in_ids(workload: str) -> bool:
    """Whether models of a workload predict ids of a vocabulary, each from those before it; else an example has one answer."""
    return workload in IN_IDS


def reads_pictures(workload: str) -> bool:
    """Whether models of a workload take pictures, alone or beside a text."""
    return workload in WITH_PICTURES


def makes_embeddings(workload: str) -> bool:
    """Whether models of a workload answer with embeddings, and learn from teachers alone."""
    return workload in IN_EMBEDDINGS


def has_classes(workload: str) -> bool:
    """Whether rows have a class, which models of a workload tell."""
    return workload in WITH_CLASSES
