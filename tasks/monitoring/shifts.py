"""Shifts of a window's rows against the reference, and quality by slice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.schema.shipping.monitoring import Monitoring
from models.monitoring.drift import corrected, kinds_shift, numbers_shift
from models.monitoring.features import Described
from tasks.monitoring.reference import Reference
from tasks.records.monitoring import ShiftFigures, SliceFigures

FEWEST = 30  # rows of a slice, in window and reference, whose features are compared
SLICES = 8  # largest slices whose features are compared


def shifts_of(
    reference: Reference, described: Described, outputs: Described, groups: Sequence[str], classes: Sequence[str], settings: Monitoring
) -> tuple[ShiftFigures, ...]:
    """Shifts of inputs and outputs, of all rows and of the largest slices.

    Args:
        reference: Rows at promotion.
        described: Features of the window's inputs.
        outputs: Features of the model's answers.
        groups: Slice of each row.
        classes: Names of the classes, in the order of the answers.
        settings: Error rate and thresholds.
    """
    if not len(groups):
        return ()
    found: list[tuple[str, str | None, Any]] = []
    theirs = {**reference.described.numbers, "confidence": reference.estimate}
    own = {**described.numbers, **outputs.numbers}
    found += [(name, None, numbers_shift(theirs[name].tolist(), own[name].tolist())) for name in own if len(theirs.get(name, ()))]
    found += [
        (name, None, kinds_shift(Counter(reference.described.kinds[name]), Counter(words)))
        for name, words in described.kinds.items()
        if name in reference.described.kinds
    ]
    if outputs.kinds:
        answers = Counter(classes[int(answer)] for answer in reference.predicted)
        found.append(("answer", None, kinds_shift(answers, Counter(outputs.kinds["answer"]))))
    if len(set(reference.slices)) > 1 and set(groups) & set(reference.slices):
        found.append(("slice", None, kinds_shift(Counter(reference.slices), Counter(groups))))
        found += _slice_shifts(reference, described, groups)
    return shift_figures(found, settings.alpha, settings.psi)


def _slice_shifts(reference: Reference, described: Described, groups: Sequence[str]) -> list[tuple[str, str | None, Any]]:
    """Shifts of numeric features within the largest slices that both have."""
    found: list[tuple[str, str | None, Any]] = []
    theirs, own = np.array(reference.slices), np.array(groups)
    for group, count in Counter(groups).most_common(SLICES):
        if count < FEWEST or (theirs == group).sum() < FEWEST:
            continue
        for name, values in described.numbers.items():
            before = reference.described.numbers[name]
            if len(before) == len(theirs):
                found.append((name, group, numbers_shift(before[theirs == group].tolist(), values[own == group].tolist())))
    return found


def slice_figures(reference: Reference, groups: Sequence[str], values: NDArray[np.float64]) -> dict[str, SliceFigures]:
    """Quality by slice, where the window has any; `groups` and `values` (n,) are those of its judged rows."""
    if len(set(groups)) < 2:
        return {}
    found, before = defaultdict(list), defaultdict(list)
    for group, value in zip(groups, values.tolist(), strict=True):
        found[group].append(value)
    for group, value in zip(reference.slices, reference.quality.tolist(), strict=True):
        before[group].append(value)
    return {
        group: SliceFigures(
            rows=len(each),
            value=float(np.mean(each)),
            reference=float(np.mean(before[group])) if before[group] else None,
            reference_rows=len(before[group]),
        )
        for group, each in sorted(found.items(), key=lambda item: -len(item[1]))
    }


def shift_figures(found: Sequence[tuple[str, str | None, Any]], alpha: float, psi: float) -> tuple[ShiftFigures, ...]:
    """The shifts of a window's features, corrected for their number, the largest first.

    Args:
        found: Feature, slice and `models.monitoring.drift.Shift` of each.
        alpha: Level of one window alone.
        psi: Index from which a shift counts.
    """
    held = corrected([shift.p for _, _, shift in found])
    figures = [
        ShiftFigures(
            feature=feature,
            slice=group,
            test=shift.test,
            statistic=shift.statistic,
            p=p,
            psi=shift.psi,
            rows=shift.rows,
            shifted=p <= alpha and shift.psi >= psi,
        )
        for (feature, group, shift), p in zip(found, held, strict=True)
    ]
    return tuple(sorted(figures, key=lambda each: (each.p, -each.psi)))
