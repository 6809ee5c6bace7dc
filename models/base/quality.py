"""Figures of a model and its baseline, retention, and classes not learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from conf.schema.workloads import answers_in_ids, makes_embeddings

BASELINE = "baseline_"  # begins the names of figures of a guess that reads no input, among those of a model

EQUAL = 1e-6  # of cosines, that are computed in single precision
UNLIKE = 0.05  # rank correlation of cosines below which two models rank texts independently of each other


class Quality(NamedTuple):
    """Figures over all held-out rows, and the same per slice (with `count`, rows of the slice)."""

    metrics: dict[str, float]
    slices: dict[str, dict[str, float]]


def main_metric(workload: str) -> str:
    """Name of the figure that models of a workload are compared by: less is better for `bits_per_byte`."""
    return "bits_per_byte" if answers_in_ids(workload) else "similarity" if makes_embeddings(workload) else "accuracy"


def direction(metric: str) -> float:
    """1 for a main metric of which more is better, -1 for one of which less is."""
    return -1.0 if metric == "bits_per_byte" else 1.0


def retention(workload: str, student: Mapping[str, float], teacher: str) -> float:
    """Share of a teacher's quality that a student keeps; 1: all, above 1: it is better.

    Classification: accuracy of the student over the teacher's. Causal-lm: perplexity of the teacher over the student's. Embedding: rank
    correlation with the scores of pairs over the teacher's; without pairs, or where the teacher ranks them no better than by chance, the
    rank correlation of cosines with the teacher's; of pictures with texts the recall over the teacher's.

    Args:
        workload: The ladder's.
        student: The student's figures, as `quality` gives them.
        teacher: `parent` or `root`.
    """
    if answers_in_ids(workload):
        return math.exp(student[f"{teacher}_nll"] - student["nll"])
    if makes_embeddings(workload):
        if "recall" in student:
            return student["recall"] / max(student[f"{teacher}_recall"], 1e-12)
        if student.get(f"{teacher}_spearman", 0.0) > UNLIKE:
            return student["spearman"] / student[f"{teacher}_spearman"]
        return student["similarity" if teacher == "root" else f"similarity_{teacher}"]
    return student["accuracy"] / max(student[f"{teacher}_accuracy"], 1e-12)


def baseline_name(workload: str) -> str:
    """The guess that reads no input, by which models of a workload are measured."""
    return "unigram" if answers_in_ids(workload) else "mean embedding" if makes_embeddings(workload) else "majority class"


def baseline_figures(metrics: Mapping[str, float]) -> dict[str, float]:
    """The baseline's figures among those of a model, under the names of the model's; empty where an older version judged it."""
    return {key.removeprefix(BASELINE): value for key, value in metrics.items() if key.startswith(BASELINE)}


def learned_nothing(metrics: Mapping[str, float]) -> str | None:
    """Why a model has learned nothing: one class for every input, or no better than a guess; None: it has, or that is not known.

    A classifier is no better than a guess where neither its accuracy nor its nll is better than the baseline's.

    Args:
        metrics: A model's figures, with its baseline's.
    """
    guess = baseline_figures(metrics)
    if not guess:
        return None
    if "similarity" in metrics:
        worse = metrics["similarity"] < UNLIKE and metrics["cosine"] <= guess["cosine"] + EQUAL
        near = f"(cosine {metrics['cosine']:.3f}, the mean's {guess['cosine']:.3f})"
        return f"its embeddings are no nearer to the root's than their mean {near}, and rank texts otherwise" if worse else None
    if metrics.get("distinct_answers") == 1:
        return f"it gives the same class for every input (majority class {100 * guess['accuracy']:.1f} %)"
    if "bits_per_byte" in metrics:
        worse = metrics["nll"] >= guess["nll"]
        return f"it is no better than unigram frequencies ({guess['bits_per_byte']:.3f} bits/byte)" if worse else None
    if metrics["accuracy"] <= guess["accuracy"] and metrics["nll"] >= guess["nll"]:
        return f"it is no better than the majority class ({100 * guess['accuracy']:.1f} %)"
    return None
