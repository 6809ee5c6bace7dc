"""Refuse objectives that are infinite because one model alone rules out an id.

Shape legend: N rows, V vocabulary or classes.

An id is ruled out by a logit of -inf. Which ids a model rules out is part of the model (a mask, a head whose bias is -inf), so a
training is refused at its first step, before any weight has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from conf.errors import UserError
from conf.schema.stage.objective import EMBEDDING_ONLY, Objective, ObjectiveKind
from models.data.batches import IGNORE
from models.losses.divergences import infinite_for
from models.losses.loss import Signal, SortedSignal, SparseSignal, StepObjective


def check_support(student_logits: Tensor, signals: Sequence[Signal], targets: Tensor, at: StepObjective) -> None:
    """Refuse an objective that is infinite on these rows because teacher and student rule out different ids.

    Args:
        student_logits: (N, V).
        signals: The teachers' signals for the same rows.
        targets: (N,) ids, `IGNORE` where the row does not count.
        at: The objective at this step.

    Raises:
        UserError: Naming `objective.kind`, how many ids are concerned, and which kinds stay finite.
    """
    keep = targets != IGNORE
    student = student_logits[keep] == -torch.inf
    by_teacher, by_student = infinite_for(at.settings)
    for signal in signals:
        if isinstance(signal, SortedSignal):
            continue  # an L1 distance is finite
        if isinstance(signal, SparseSignal):
            ids, log_probs, alone = signal.ids[keep], signal.log_probs[keep], signal.log_residual[keep] == -torch.inf
            listed = torch.zeros_like(student, dtype=log_probs.dtype).scatter_add_(-1, ids, log_probs.exp()) > 0
            _refuse(at, "teacher", int((alone[:, None] & ~listed & ~student).any(0).sum()) if by_teacher else 0)
            _refuse(at, "student", int((listed & student).any(0).sum()) if by_student else 0)
            continue
        teacher = signal.logits[keep] == -torch.inf
        _refuse(at, "teacher", int((teacher & ~student).any(0).sum()) if by_teacher else 0)
        _refuse(at, "student", int((student & ~teacher).any(0).sum()) if by_student else 0)


def _refuse(at: StepObjective, who: str, count: int) -> None:
    if count:
        why = f"Ids with logit -inf in the {who} alone: {count:,}; the objective is infinite there."
        finite = [kind for kind in get_args(ObjectiveKind) if kind not in EMBEDDING_ONLY and not any(infinite_for(Objective(kind=kind)))]
        allowed = f"{', '.join(finite[:-1])} or {finite[-1]}, with their default beta and skew"
        raise UserError.about("objective.kind", at.settings.kind, allowed, f"{why} Choose another kind, or give both models the same ids.")
