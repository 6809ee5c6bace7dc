"""The interface that the data demand of a model; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema.workloads import answers_in_ids


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
    prefix: tuple[int, ...] = ()  # ids that begin a text, where the tokenizer puts any before it

    @property
    def begin_id(self) -> int | None:
        """The id after which a text begins: the last of the prefix, or the end id."""
        return self.prefix[-1] if self.prefix else self.end_id

    @property
    def output_ids(self) -> int | None:
        """Ids that a causal LM's logits are cut to; None for classifiers."""
        return self.vocabulary if answers_in_ids(self.workload) else None
