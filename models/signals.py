"""What a teacher says about a batch. Live signals are dense: the teacher runs beside the student."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.batches import Batch
from models.objectives import TeacherSignal

SignalSource = Callable[[Batch], TeacherSignal]


def rows(model: nn.Module, batch: Batch, vocabulary: int | None) -> Tensor:
    """Logits of a model, one row for each target.

    Args:
        model: A causal LM or a classifier.
        batch: Its inputs.
        vocabulary: For causal-lm, ids of the tokenizer; surplus logits of a padded vocabulary are cut. None for classifiers.

    Returns:
        (N, V) logits: N = B * L for causal-lm, B for classifiers.
    """
    logits = cast(Any, model)(**batch.inputs).logits
    return logits if vocabulary is None else logits[..., :vocabulary].flatten(0, 1)


def live(teacher: nn.Module, vocabulary: int | None) -> SignalSource:
    """The teacher itself as source of signals; its weights are frozen and never change."""
    teacher.eval().requires_grad_(False)

    def source(batch: Batch) -> TeacherSignal:
        with torch.no_grad():
            return TeacherSignal(rows(teacher, batch, vocabulary))

    return source
