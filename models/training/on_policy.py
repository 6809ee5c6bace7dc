"""Batches of text that the student writes, between batches of the data.

On-policy distillation: the student continues prompts, and its teachers' distributions are its targets at every id that it wrote
(Agarwal et al. 2024, "On-Policy Distillation of Language Models", arXiv:2306.13649). Such an id has no label: `UNLABELLED`, so that
alpha is 1 there. The text is a function of seed, step and weights; the buffer is part of a checkpoint.

Shape legend: B examples of a batch, R rows of the buffer, T positions of its longest one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from conf.schema.stage.signals import Signals
from models.architectures.configs import positions_of
from models.data.batches import IGNORE, UNLABELLED, Batch, TrainingBatches
from models.losses.schedules import WritingSteps
from models.training.reading import Recording
from models.training.rollout import Written, write

NUMBER = "number"  # of the buffer, beside its tensors


class Writing(NamedTuple):
    """Lengths of prompts and texts, in ids.

    Attributes:
        prompt: First ids of a window that are its prompt; None: the prompt of a row with a completion.
        tokens: Most ids that are written; None: as many as fit.
        longest: Most ids of a text.
    """

    prompt: int | None
    tokens: int | None
    longest: int

    @classmethod
    def of(cls, signals: Signals, sequence_length: int, completions: bool) -> Writing:
        """Those of a stage's settings, for windows or for rows of prompt and completion."""
        prompt = None if completions else signals.prompt or max(sequence_length // 2, 1)
        return cls(prompt, signals.tokens, sequence_length)

    @property
    def positions(self) -> int:
        """Most ids of a text."""
        return self.longest if self.prompt is None or self.tokens is None else min(self.prompt + self.tokens, self.longest)


class OnPolicyBatches:
    """Batches addressed by step, some of which the student writes.

    Args:
        batches: Of the data: batches of the other steps, and prompts.
        model: The student, whose weights change between the steps.
        signals: Settings of the writing.
        steps: Of the training's schedule.
        precision: `bf16` or `fp32`, as it trains.
        unheard: (V,) bool, ids of which its teachers say nothing: where it wrote one, the row does not count.
    """

    def __init__(
        self, batches: TrainingBatches, model: nn.Module, signals: Signals, steps: int, precision: str, unheard: Tensor | None = None
    ) -> None:
        self._batches, self._model, self._precision, self._unheard = batches, model, precision, unheard
        self._temperature, info = signals.sampling_temperature, batches.info
        self.steps = WritingSteps.of(signals, steps)
        self.writing = Writing.of(signals, min(info.sequence_length, positions_of(model) or info.sequence_length), info.completions)
        self._recording = Recording(model)
        self._number: int | None = None
        self._written: Written | None = None

    def at(self, step: int) -> Batch:
        """The batch of `step`; a buffer that is needed is written with the weights as they are now."""
        if not self.steps.has(step):
            return self._batches.at(step)
        number, index = self.steps.place(step)
        if self._number != number:
            self._written, self._number = self._write(step), number
        assert self._written is not None
        size = self._batches.batch_size
        return text_batch(Written(*(each[index * size : (index + 1) * size] for each in self._written)), self._unheard)

    def state(self) -> dict[str, Tensor]:
        """The buffer; empty where nothing is written yet."""
        if self._written is None:
            return {}
        return {**self._written._asdict(), NUMBER: torch.tensor(self._number)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Return to a buffer."""
        if state:
            self._number = int(state[NUMBER])
            self._written = Written(*(state[name] for name in Written._fields))

    def _write(self, step: int) -> Written:
        prompts = [prompt for each in self.steps.prompts(step) for prompt in self._prompts(self._batches.at(each))]
        lengths, tokens = [len(prompt) for prompt in prompts], self.writing.tokens or self.writing.longest
        return write(
            self._model,
            prompts,
            [min(length + tokens, self.writing.longest) for length in lengths],
            end_id=self._batches.info.end_id,
            vocabulary=self._batches.info.vocabulary,
            temperature=self._temperature,
            seed=(self._batches.seed * 1_000_003 + step) % 2**63,
            precision=self._precision,
            recording=self._recording,
        )

    def _prompts(self, batch: Batch) -> list[Tensor]:
        ids = batch.inputs["input_ids"]
        if self.writing.prompt is not None:
            return list(ids[:, : self.writing.prompt])
        first = (batch.targets != IGNORE).int().argmax(1)  # it predicts the first id of the answer, and so ends the prompt
        return [row[: last + 1] for row, last in zip(ids, first.tolist(), strict=True)]


def text_batch(written: Written, unheard: Tensor | None = None) -> Batch:
    """A batch of (B, T) texts, in which the ids that were written count, but for `unheard` ones, without a label."""
    longest = int(written.lengths.max())
    ids, position = written.ids[:, :longest], torch.arange(1, longest)
    counts = (position >= written.starts[:, None]) & (position < written.lengths[:, None])
    if unheard is not None:
        counts &= ~unheard[ids[:, 1:]]
    targets = torch.full(counts.shape, IGNORE).masked_fill(counts, UNLABELLED)
    return Batch({"input_ids": ids[:, :-1].contiguous()}, targets, torch.zeros(len(ids), dtype=torch.int32))
