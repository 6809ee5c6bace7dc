"""Figures of a model, and retention of a teacher's quality; no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple


class Quality(NamedTuple):
    """Figures over all held-out rows, and the same per slice (with `count`, rows of the slice)."""

    metrics: dict[str, float]
    slices: dict[str, dict[str, float]]


def retention(workload: str, student: Mapping[str, float], teacher: str) -> float:
    """How much of a teacher's quality a student keeps; 1: all, above 1: it is better.

    Classification: accuracy of the student over the teacher's. Causal-lm: perplexity of the teacher over the student's.

    Args:
        workload: The ladder's.
        student: The student's figures, as `quality` gives them.
        teacher: `parent` or `root`.
    """
    if workload == "causal-lm":
        return math.exp(student[f"{teacher}_nll"] - student["nll"])
    return student["accuracy"] / max(student[f"{teacher}_accuracy"], 1e-12)
