"""The interface that the data demand of a model; no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interface:
    """Inputs and outputs of a model, set by the data: equal for the teacher and every student."""

    workload: str
    sequence_length: int
    vocabulary: int | None = None
    end_id: int | None = None
    pad_id: int | None = None
    classes: int = 0
    image_shape: tuple[int, int, int] | None = None

    @property
    def output_ids(self) -> int | None:
        """Ids that a causal LM's logits are cut to; None for classifiers."""
        return self.vocabulary if self.workload == "causal-lm" else None
