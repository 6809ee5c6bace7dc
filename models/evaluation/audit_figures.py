"""Figures of an audit over all rows: agreement, inheritance, calibration.

Figures go by dotted names: `ece`, `parent.agreement`, `root.inheritance_excess`. `s` is the student, `t` a teacher, `c` the untaught
control (the same student, trained without a teacher), `y` the label; answers are first choices.

- `agreement` P(s = t), with Cohen's `kappa`; `kl` KL(t || s) at temperature 1 (Stanton et al. 2021, arXiv:2106.05945);
- `knowledge_loss` P(s wrong | t right), `knowledge_gain` P(s right | t wrong);
- `inheritance` P(s = t | t wrong); `confident_inheritance_0.9` P(s = t, s at least .9 sure | t wrong, t at least .9 sure); their
  `_excess` over the control's: without it most inherited errors are only hard examples;
- `provenance.root`, `.assistant`, `.new`: whose answer a student's error is; they sum to 1;
- `ece` (Guo et al. 2017, arXiv:1706.04599), `nll`, `brier`; `calibration`: the same as `ece`, but against the teacher's probability of
  the student's choice instead of the label.

Shape legend: N rows, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.evaluation.audit_rows import AuditRows, Predictions
from models.evaluation.bootstrap import BootstrapEstimate, Column, Figure, Limits, Sums, resample
from models.evaluation.evaluation import ECE_BINS


class Bin(NamedTuple):
    """A bar of the reliability diagram."""

    confidence: float  # mean
    accuracy: float
    rows: int


def teachers_of(rows: AuditRows) -> list[str]:
    """`parent` and, where it is another model, `root`."""
    return list(rows.comparisons)


def overall(rows: AuditRows, thresholds: Sequence[float], limits: Limits, resamples: int) -> dict[str, Figure]:
    """All figures over all rows, by name."""
    columns = {**_own(rows), **_provenance(rows)}
    for teacher in teachers_of(rows):
        columns |= _teacher_columns(rows, teacher, thresholds)
    nothing = np.zeros(len(rows.target), dtype=np.int64)
    sums = resample(columns, nothing, 1, rows.document, resamples)
    estimates = {name: sums.ratio(name, "count") for name in ("nll", "brier")}
    estimates["accuracy"] = sums.ratio("right", "count", share=True)
    estimates["ece"] = _gap_of_bins(sums, "ece")
    estimates |= {f"provenance.{who}": sums.ratio(f"provenance.{who}", "wrong", share=True) for who in ("root", "assistant", "new")}
    figures = {name: estimate.figure(limits) for name, estimate in estimates.items()}
    for teacher in teachers_of(rows):
        figures |= {f"{teacher}.{name}": figure for name, figure in _against(rows, sums, teacher, thresholds, limits).items()}
    return figures


def _own(rows: AuditRows) -> dict[str, Column]:
    student = rows.predictions["student"]
    right = student.predicted == rows.target
    columns: dict[str, Column] = {"count": np.ones(len(right)), "right": right, "wrong": ~right, "nll": student.nll, "brier": student.brier}
    return columns | _bins("ece", student.confidence, right)


def _bins(name: str, confidence: NDArray[np.floating], truth: NDArray[np.generic]) -> dict[str, Column]:
    place, gap = bin_of(confidence), confidence - truth.astype(np.float32)
    return {f"{name}.{index}": partial(_in_bin, place, gap, index) for index in range(ECE_BINS)}


def _in_bin(place: NDArray[np.integer], gap: NDArray[np.floating], index: int) -> NDArray[np.floating]:
    return np.where(place == index, gap, 0.0)


def bin_of(confidence: NDArray[np.floating]) -> NDArray[np.int8]:
    """Index of the bin of each probability, of 15 bins of equal width."""
    return np.minimum((confidence * ECE_BINS).astype(np.int8), ECE_BINS - 1)


def _gap_of_bins(sums: Sums, name: str) -> BootstrapEstimate:
    point, draws = sums.column([f"{name}.{index}" for index in range(ECE_BINS)])
    whole = sums.ratio("count", "count")
    weight = sums.column(["count"])[1][:, 0]
    return BootstrapEstimate(float(np.abs(point).sum() / whole.rows), np.abs(draws).sum(1) / weight, whole.rows, whole.documents)


def _provenance(rows: AuditRows) -> dict[str, Column]:
    student, parent = rows.predictions["student"].predicted, rows.predictions["parent"].predicted
    root = rows.predictions["root"].predicted if "root" in rows.predictions else parent
    wrong = student != rows.target
    of_root, of_parent = wrong & (student == root), wrong & (student == parent) & (student != root)
    return {"provenance.root": of_root, "provenance.assistant": of_parent, "provenance.new": wrong & ~of_root & ~of_parent}


def shared(rows: AuditRows, model: str, teacher: str, threshold: float = 0.0) -> NDArray[np.bool_]:
    """(N,) where a model gives its teacher's wrong answer, both at least so sure."""
    theirs, own = rows.predictions[teacher], rows.predictions[model]
    sure = (theirs.confidence >= threshold) & (own.confidence >= threshold)
    return (theirs.predicted != rows.target) & (own.predicted == theirs.predicted) & sure


def _teacher_columns(rows: AuditRows, teacher: str, thresholds: Sequence[float]) -> dict[str, Column]:
    student, theirs, comparison = rows.predictions["student"], rows.predictions[teacher], rows.comparisons[teacher]
    right, teacher_right = student.predicted == rows.target, theirs.predicted == rows.target
    columns: dict[str, Column] = {
        "agree": student.predicted == theirs.predicted,
        "kl": comparison.kl,
        "known": teacher_right,
        "unknown": ~teacher_right,
        "lost": teacher_right & ~right,
        "gained": ~teacher_right & right,
        **_bins("calibration", student.confidence, comparison.theirs),
    }
    for threshold in (0.0, *thresholds):
        columns[f"sure{threshold}"] = ~teacher_right & (theirs.confidence >= threshold)
        taught = [model for model in ("student", "control") if model in rows.predictions]
        columns |= {f"{model}{threshold}": shared(rows, model, teacher, threshold) for model in taught}
    return {f"{teacher}.{name}": column for name, column in columns.items()}


def _against(rows: AuditRows, sums: Sums, teacher: str, thresholds: Sequence[float], limits: Limits) -> dict[str, Figure]:
    def share(above: str, below: str) -> BootstrapEstimate:
        return sums.ratio(f"{teacher}.{above}", below if below == "count" else f"{teacher}.{below}", share=True)

    estimates = {
        "agreement": share("agree", "count"),
        "kl": sums.ratio(f"{teacher}.kl", "count"),
        "knowledge_loss": share("lost", "known"),
        "knowledge_gain": share("gained", "unknown"),
        "calibration": _gap_of_bins(sums, f"{teacher}.calibration"),
    }
    for threshold in (0.0, *thresholds):
        name = f"confident_inheritance_{threshold:g}" if threshold else "inheritance"
        estimates[name] = share(f"student{threshold}", f"sure{threshold}")
        if "control" in rows.predictions:
            estimates[f"{name}_excess"] = estimates[name].minus(share(f"control{threshold}", f"sure{threshold}"))
    figures = {name: estimate.figure(limits) for name, estimate in estimates.items()}
    figures["kappa"] = _without_interval(kappa(rows.predictions["student"], rows.predictions[teacher]), figures["agreement"])
    if "control" in rows.predictions:
        figures["gap_closed"] = _without_interval(_gap_closed(rows, teacher), figures["agreement"])
    return figures


def _without_interval(value: float | None, like: Figure) -> Figure:
    return Figure(None if like.few else value, None, None, like.rows, like.documents)


def kappa(one: Predictions, other: Predictions) -> float | None:
    """Cohen's kappa `(p_o - p_e) / (1 - p_e)`, agreement beyond that of the models' habits by chance; None where both say one thing."""
    size = int(max(one.predicted.max(), other.predicted.max())) + 1
    ours, theirs = (np.bincount(each.predicted, minlength=size) / len(each.predicted) for each in (one, other))
    chance = float(ours @ theirs)
    return None if chance >= 1 - 1e-12 else (float(np.mean(one.predicted == other.predicted)) - chance) / (1 - chance)


def _gap_closed(rows: AuditRows, teacher: str) -> float | None:
    """`(s - c) / (t - c)` of the mean nll: 1 where the student has become as good as its teacher; None where the control is no worse."""
    student, theirs, control = (float(rows.predictions[name].nll.mean(dtype=np.float64)) for name in ("student", teacher, "control"))
    return (control - student) / (control - theirs) if control - theirs > 1e-9 else None


def reliability(rows: AuditRows) -> list[Bin]:
    """The bars of the student's reliability diagram that are not empty."""
    student = rows.predictions["student"]
    place, right = bin_of(student.confidence), student.predicted == rows.target
    inside = [place == index for index in range(ECE_BINS)]
    return [Bin(float(student.confidence[m].mean(dtype=np.float64)), float(right[m].mean()), int(m.sum())) for m in inside if m.any()]
