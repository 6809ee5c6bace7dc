"""Audit of slices and token classes: amplified gaps and inherited errors.

Shows where the student is worse than elsewhere, and how much of that it inherited. The loss of a row is an error (0 or 1) of a
classifier, the nll of a language model. Of each group of rows:

- `gap`: the student's mean loss there less its mean loss over all rows; `<teacher>.gap` the teacher's;
- `<teacher>.amplification`: gap over the teacher's gap, which counts as at least `smallest`; above 1 amplified, below mitigated;
- `<teacher>.inherited`: the share of rows where the student gives its teacher's wrong answer, less the same share of the control;
- `worse`: the student's share of wrong answers less the control's.

A group is flagged `amplified` where the student's gap exceeds the teacher's (or 0) by more than `smallest`; and `inherited` where the share
of inherited errors does, and the student is worse than its control (both tests must say so): a student that agrees with its teacher more,
in errors too, and is the better for it, is none to flag. One-sided, over all groups and teachers together at a false-discovery rate
(Benjamini and Hochberg 1995).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.evaluation.audit_figures import shared, teachers_of
from models.evaluation.audit_rows import AuditRows
from models.evaluation.bootstrap import BootstrapEstimate, Figure, Limits, Sums, resample, rule_of_three

Tests = dict[str, float]  # flag -> p-value


class SliceSettings(NamedTuple):
    """Thresholds of flags."""

    limits: Limits
    resamples: int
    smallest: float
    false_discovery: float
    errors: bool  # the loss is the error; else the nll


class Group(NamedTuple):
    """A slice or a class of tokens.

    Attributes:
        kind: `slice` or `token`.
        few: Whether it has too few rows or documents for any judgement; then there are no figures.
        figures: By name, as above, and each model's mean loss under the model's name.
        flags: `<teacher>.amplified`, `<teacher>.inherited`.
        chances: The adjusted p-value of each test, by the flag's name.
    """

    name: str
    kind: str
    rows: int
    documents: int
    few: bool
    figures: dict[str, Figure]
    flags: tuple[str, ...] = ()
    chances: Mapping[str, float] = MappingProxyType({})


def groups_of(rows: AuditRows, kinds: Mapping[str, tuple[NDArray[np.integer], Sequence[str]]], settings: SliceSettings) -> list[Group]:
    """Judge all groups.

    Args:
        rows: The rows.
        kinds: For each kind of group (N,) the group of each row, and the groups' names; a group without rows is `few`, too.
        settings: Thresholds of flags.
    """
    columns = _columns(rows, settings.errors)
    everything = resample(columns, np.zeros(len(rows.target), dtype=np.int64), 1, rows.document, settings.resamples)
    groups: list[Group] = []
    tests: list[Tests] = []
    for kind, (place, names) in kinds.items():
        sums = resample(columns, place, len(names), rows.document, settings.resamples)
        for index, name in enumerate(names):
            count, documents = round(sums.point[index, 0]), int(sums.units[index, 0])
            few = count < settings.limits.rows or documents < settings.limits.documents
            figures, test = ({}, {}) if few else _group(rows, sums, everything, index, settings)
            groups.append(Group(name, kind, count, documents, few, figures))
            tests.append(test)
    return _flagged(groups, tests, settings)


def _columns(rows: AuditRows, errors: bool) -> dict[str, NDArray[np.generic]]:
    columns: dict[str, NDArray[np.generic]] = {"count": np.ones(len(rows.target))}
    for model, answers in rows.predictions.items():
        columns[model] = answers.predicted != rows.target if errors else answers.nll
        columns[f"{model}.wrong"] = answers.predicted != rows.target
        columns |= {f"{teacher}.{model}": shared(rows, model, teacher) for teacher in teachers_of(rows) if model in ("student", "control")}
    return columns


def _group(rows: AuditRows, sums: Sums, everything: Sums, index: int, settings: SliceSettings) -> tuple[dict[str, Figure], Tests]:
    loss = {model: sums.ratio(model, "count", index, share=settings.errors) for model in rows.predictions}
    gaps = {model: each.minus(everything.ratio(model, "count")) for model, each in loss.items()}
    gap = gaps["student"]
    figures = {model: each.figure(settings.limits) for model, each in loss.items()}
    figures["gap"] = _at_least(gap.figure(settings.limits), loss["student"])
    tests: Tests = {}
    worse = None
    if "control" in rows.predictions:
        ours, without = (sums.ratio(f"{model}.wrong", "count", index, share=True) for model in ("student", "control"))
        worse = ours.minus(without)
        figures["worse"] = worse.figure(settings.limits)
    for teacher in teachers_of(rows):
        theirs = gaps[teacher]
        figures[f"{teacher}.gap"] = theirs.figure(settings.limits)
        floor = BootstrapEstimate(
            max(theirs.value, settings.smallest), np.maximum(theirs.draws, settings.smallest), gap.rows, gap.documents
        )
        ratio = BootstrapEstimate(gap.value / floor.value, gap.draws / floor.draws, gap.rows, gap.documents).figure(settings.limits)
        most = (figures["gap"].high or 0.0) / floor.value
        figures[f"{teacher}.amplification"] = ratio._replace(high=max(ratio.high or 0.0, most)) if _same(loss["student"]) else ratio
        none = BootstrapEstimate(max(theirs.value, 0.0), np.maximum(theirs.draws, 0.0), gap.rows, gap.documents)
        tests[f"{teacher}.amplified"] = gap.minus(none).p_above(settings.smallest)
        if worse is not None:
            with_teacher, without = (sums.ratio(f"{teacher}.{model}", "count", index, share=True) for model in ("student", "control"))
            inherited = with_teacher.minus(without)
            figures[f"{teacher}.inherited"] = inherited.figure(settings.limits)
            tests[f"{teacher}.inherited"] = max(inherited.p_above(settings.smallest), worse.p_above(0.0))
    return figures, tests


def _same(loss: BootstrapEstimate) -> bool:
    return loss.within is not None and float(np.nanstd(loss.draws)) < 1e-12


def _at_least(gap: Figure, loss: BootstrapEstimate) -> Figure:
    """Raise the upper bound of a gap by the rule of three: no error seen in a slice does not mean none there."""
    if gap.value is None or gap.high is None or not _same(loss):
        return gap
    return gap._replace(high=max(gap.high, gap.value + rule_of_three(loss.documents)))


def _flagged(groups: list[Group], tests: list[Tests], settings: SliceSettings) -> list[Group]:
    from scipy.stats import false_discovery_control

    keys = [(index, name) for index, test in enumerate(tests) for name in test]
    if not keys:
        return groups
    adjusted = false_discovery_control([tests[index][name] for index, name in keys], method="bh")
    chances: list[dict[str, float]] = [{} for _ in groups]
    for (index, name), chance in zip(keys, adjusted, strict=True):
        chances[index][name] = float(chance)
    return [
        group._replace(chances=mine, flags=tuple(name for name, chance in mine.items() if chance <= settings.false_discovery))
        for group, mine in zip(groups, chances, strict=True)
    ]
