"""The interface that the data demand of a model; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema.workloads import answers_in_ids


@dataclass(frozen=True)
class Picture:
    """A picture beside a text, as a vision-language model takes it.

    Attributes:
        id: The id in whose places the features of the picture come; -1: there is none.
        count: How many of them a picture has; 0: it is embedded beside the text.
        shape: Of its `pixel_values`, (m, ...): m is 1, or the number of its patches.
        marks: Name of the input that marks these ids by 1 and others by 0; None: the model takes none.
    """

    id: int
    count: int
    shape: tuple[int, ...]
    marks: str | None = None


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
    picture: Picture | None = None  # beside a text

    @property
    def begin_id(self) -> int | None:
        """The id after which a text begins: the last of the prefix, or the end id."""
        return self.prefix[-1] if self.prefix else self.end_id

    @property
    def output_ids(self) -> int | None:
        """Ids that a causal LM's logits are cut to; None for classifiers."""
        return self.vocabulary if answers_in_ids(self.workload) else None
