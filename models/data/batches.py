"""Batches of a corpus as a pure function of the step.

Shape legend: B examples of a batch, L sequence length, N rows that a loss is taken over (B * L for causal-lm, B else).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from conf.errors import UserError
from conf.schema.workloads import answers_in_ids
from models.data.corpus import PIXELS, Corpus, CorpusInfo, Split, shuffled

IGNORE = -100  # target of a position that does not count
UNLABELLED = -1  # target of an example without a label, which counts for its teachers


@dataclass(frozen=True)
class Batch:
    """Inputs of a model and its targets.

    Attributes:
        inputs: Keyword arguments of the model's forward: `input_ids` (B, L) and, where classifiers' examples are padded,
            `attention_mask` (B, L), or, where attention stays within a document, `position_ids` (B, L), 0 where one begins;
            or `pixel_values` (B, C, H, W). Beside ids those of a vision-language model, see `Split.pictures`.
        targets: (B, L) for causal-lm, already aligned: `targets[b, t]` is the id that the logits at t predict; (B,) classes else;
            (B, 2) for embeddings of pictures and texts.
            `IGNORE` where a position does not count; `UNLABELLED` where an example has no class and counts for teachers alone.
        slices: (B,) index of each example's slice; training leaves it empty.
        places: (B,) int64, of windows of packed documents: where the first target stands in the corpus, its splits one after another; where
            that does not count, it may be outside the document. None: there are no windows.
        merged: Names of inputs (B, m, ...) that the model takes as (B * m, ...): patches of pictures.
        rationale: (B,) bool, whether an example is the reasoning behind a completion, a task of its own; None: none is.
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    slices: Tensor
    places: Tensor | None = None
    merged: tuple[str, ...] = ()
    rationale: Tensor | None = None

    @property
    def arguments(self) -> dict[str, Tensor]:
        """The inputs as the model's forward takes them."""
        return {name: value.flatten(0, 1) if name in self.merged else value for name, value in self.inputs.items()}

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return replace(self, inputs={k: v.to(device) for k, v in self.inputs.items()}, targets=self.targets.to(device))

    def part(self, index: int, parts: int) -> Batch:
        """Micro-batch `index` of `parts` equal ones."""
        rows = slice(index * len(self.targets) // parts, (index + 1) * len(self.targets) // parts)
        places = None if self.places is None else self.places[rows]
        kind = None if self.rationale is None else self.rationale[rows]
        inputs = {k: v[rows] for k, v in self.inputs.items()}
        return replace(self, inputs=inputs, targets=self.targets[rows], slices=self.slices[rows], places=places, rationale=kind)

    def trimmed(self) -> Batch:
        """The same batch without positions after the last that counts, where there are rationales: a part may hold short answers alone."""
        if self.rationale is None:
            return self
        length = int((self.targets != IGNORE).any(0).nonzero().max()) + 1
        return replace(self, inputs={k: v[:, :length] for k, v in self.inputs.items()}, targets=self.targets[:, :length])

    def task(self, rationale: bool) -> Batch:
        """The same batch, in which the examples of one task alone count."""
        assert self.rationale is not None
        other = (self.rationale != rationale).to(self.targets.device)
        return replace(self, targets=self.targets.masked_fill(other[:, None], IGNORE))

    @property
    def valid(self) -> int:
        """Rows that count."""
        return int((self.targets != IGNORE).sum())

    @property
    def labelled(self) -> int:
        """Rows that count and have a label."""
        return int((self.targets >= 0).sum())

    def labels_alone(self) -> Batch:
        """The same batch for a step without teachers: a row without label does not count."""
        return replace(self, targets=self.targets.masked_fill(self.targets == UNLABELLED, IGNORE))


def next_token_batch(
    windows: NDArray[np.int64],
    lengths: NDArray[np.int64],
    slices: NDArray[np.int32],
    counted: NDArray[np.uint8] | None = None,
    given: int = 1,
) -> Batch:
    """Align windows for next-token prediction; the one place where that, and the mask of valid positions, is decided.

    Args:
        windows: (B, L + 1) ids; beyond its length a window's ids do not matter.
        lengths: (B,) ids of each window that are real. Padding is marked by position, never by id.
        slices: (B,) slice of each window.
        counted: (B, L + 1) 1 for the ids that are to be predicted, see `Split.counted`; None: all.
        given: Ids at the beginning of each window that nothing is to predict.

    Returns:
        A batch whose logits at t predict `windows[:, t + 1]`.
    """
    ids = torch.from_numpy(windows)
    targets = ids[:, 1:].clone()
    position = torch.arange(1, windows.shape[1])
    targets[position[None, :] >= torch.from_numpy(lengths)[:, None]] = IGNORE
    if counted is not None:
        targets[torch.from_numpy(counted[:, 1:]) == 0] = IGNORE
    targets[:, : given - 1] = IGNORE
    # Right padding needs no attention mask: a causal model never looks ahead, and padded positions carry no loss.
    return Batch({"input_ids": ids[:, :-1].contiguous()}, targets, torch.from_numpy(slices))


def example_batch(split: Split, info: CorpusInfo, chosen: NDArray[np.int64]) -> Batch:
    """Examples of classifiers and encoders: pixels, or texts padded to the longest."""
    labels = torch.from_numpy(np.asarray(split.labels[chosen], dtype=np.int64))
    slices = torch.from_numpy(np.asarray(split.slices[chosen], dtype=np.int32))
    if info.workload == "image-classification":
        values = np.asarray(split.values[chosen])
        pixels = values.astype(np.float32, copy=False) if info.pixels is None else info.pixels.of(values)
        return Batch({"pixel_values": torch.from_numpy(pixels)}, labels, slices)
    texts = [split.values[split.offsets[i] : split.offsets[i + 1]] for i in chosen]
    longest = max(len(text) for text in texts)
    ids = np.full((len(texts), longest), info.pad_id, dtype=np.int64)
    mask = np.zeros((len(texts), longest), dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    batch = Batch({"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}, labels, slices)
    if info.picture is None:
        return batch
    both = labels[:, None].expand(-1, 2).contiguous()  # the picture's embedding, and the text's
    return with_pictures(replace(batch, targets=both), split, info, chosen)


def completion_batch(split: Split, info: CorpusInfo, chosen: NDArray[np.int64]) -> Batch:
    """Documents of prompt and completion, one to a window, padded to the longest."""
    assert info.pad_id is not None
    assert split.counted is not None
    lengths = np.diff(split.offsets)[chosen]
    windows = np.full((len(chosen), int(lengths.max())), info.pad_id, dtype=np.int64)
    counted = np.zeros(windows.shape, dtype=np.uint8)
    for row, (begin, length) in enumerate(zip(split.offsets[chosen], lengths, strict=True)):
        windows[row, :length] = split.values[begin : begin + length]
        counted[row, :length] = split.counted[begin : begin + length]
    batch = next_token_batch(windows, lengths, np.asarray(split.slices[chosen]), counted)
    return batch if info.picture is None else with_pictures(batch, split, info, chosen)


def with_pictures(batch: Batch, split: Split, info: CorpusInfo, chosen: NDArray[np.int64]) -> Batch:
    """The batch with each document's picture; (B, ...) where a picture is one piece, else (B, m, ...)."""
    inputs, merged = dict(batch.inputs), []
    for name, stored in split.pictures.items():
        if name == PIXELS:
            values = np.asarray(stored[chosen])
            values = values.astype(np.float32, copy=False) if info.pixels is None else info.pixels.of(values)
        else:  # alike for all
            values = np.repeat(np.asarray(stored), len(chosen), axis=0)
        if values.shape[1] == 1:
            values = values[:, 0]
        else:
            merged.append(name)
        inputs[name] = torch.from_numpy(values)
    picture = info.picture
    if picture is not None and picture.marks is not None:
        inputs[picture.marks] = (inputs["input_ids"] == picture.id).long()
    return replace(batch, inputs=inputs, merged=tuple(merged))


def _joined(answers: Batch, rationales: Batch, pad_id: int) -> Batch:
    """Examples of both tasks, the rationales behind the answers, padded to the longest."""
    width = max(answers.targets.shape[1], rationales.targets.shape[1])

    def together(values: Sequence[Tensor], filler: int) -> Tensor:
        return torch.cat([functional.pad(value, (0, width - value.shape[1]), value=filler) for value in values])

    ids = together([answers.inputs["input_ids"], rationales.inputs["input_ids"]], pad_id)
    targets, slices = together([answers.targets, rationales.targets], IGNORE), torch.cat([answers.slices, rationales.slices])
    return Batch({"input_ids": ids}, targets, slices, rationale=torch.arange(len(ids)) >= len(answers.targets))


def document_positions(places: NDArray[np.int64], offsets: NDArray[np.int64], given: int = 1) -> NDArray[np.int64]:
    """Positions within their documents of inputs at (B, L) places of a split, counted from where a document, or the window, begins.

    Args:
        places: Where the inputs stand in `Split.values`.
        offsets: Of the split.
        given: 1: documents have no beginning of their own, and the end id of the one before is theirs, as in evaluation; 0: they have.
    """
    document = np.searchsorted(offsets, places + given, side="right") - 1
    return places - np.maximum(offsets[document] - given, places[:, :1])


class TrainingBatches:
    """The training split, shuffled anew every epoch. Causal-lm packs documents into windows of L + 1 ids, one after another.

    Where attention may not cross documents, position ids begin anew with each: transformers' models keep attention within a run of them.
    Completions are not packed: a document is an example.

    Args:
        corpus: Prepared data.
        batch_size: Examples of a step.
        seed: Of the order.
        labelled: Draw classifiers' examples with a label alone: who learns without a teacher spends no step on the others.
        rationales: Add the rationale of each drawn row that has one, as a further example of the step: rows and their order stay.
        pool: Most examples, the first ones of the order; None: all.
    """

    def __init__(
        self, corpus: Corpus, batch_size: int, seed: int, labelled: bool = False, rationales: bool = False, pool: int | None = None
    ) -> None:
        self.info = corpus.info
        self.split = corpus.split("train")
        self.batch_size = batch_size
        self.seed = seed
        self.rationales = corpus.rationales if rationales else None
        self.explained = None if self.rationales is None else np.diff(self.rationales.offsets) > 0
        length = self.info.sequence_length
        windows = self.packed = self.info.workload == "causal-lm" and not self.info.completions
        self.drawn = np.flatnonzero(self.split.labels >= 0) if labelled and self.info.classes else None  # numbers of those with a label
        self._all = (len(self.split.values) - 1) // length if windows else len(self.split if self.drawn is None else self.drawn)
        self.examples = min(self._all, pool or self._all)  # of an epoch
        if self.examples < 1 and self.drawn is not None:
            raise UserError.about("data.columns.label", "no label", "labelled training rows, for a model without teacher", "Label some.")
        if self.examples < 1:
            raise UserError.about(
                "data.sequence_length", length, f"at most {len(self.split.values) - 1}, the tokens of all training documents", "Shorten it."
            )

    def numbers(self, step: int) -> NDArray[np.int64]:
        """(B,) numbers of the examples in the batch of `step`."""
        position = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epoch, place = position // self.examples, position % self.examples
        chosen = np.empty(self.batch_size, dtype=np.int64)
        for value in np.unique(epoch):
            here = epoch == value
            chosen[here] = shuffled(self.seed, int(value), self._all, self.examples)[place[here]]
        return chosen if self.drawn is None else self.drawn[chosen]

    def at(self, step: int) -> Batch:
        """The batch of `step`: a function of seed and step alone."""
        chosen = self.numbers(step)
        if not answers_in_ids(self.info.workload):
            return example_batch(self.split, self.info, chosen)
        if self.info.completions:
            batch = completion_batch(self.split, self.info, chosen)
            own = chosen[:0] if self.explained is None else chosen[self.explained[chosen]]
            if self.rationales is None or not len(own):
                return batch
            assert self.info.pad_id is not None
            return _joined(batch, completion_batch(self.rationales, self.info, own), self.info.pad_id)
        length = self.info.sequence_length
        places = chosen[:, None] * length + np.arange(length + 1)
        windows = np.asarray(self.split.values[places], dtype=np.int64)
        batch = next_token_batch(windows, np.full(len(windows), length + 1), np.zeros(len(windows), dtype=np.int32))
        if not self.info.cross_document_attention:
            self._part(batch, places)
        return replace(batch, places=torch.from_numpy(places[:, 1]))

    def _part(self, batch: Batch, places: NDArray[np.int64]) -> None:
        """Keep attention within documents; a document's first ids, its prefix, are not predicted from the one before."""
        offsets, prefix = np.asarray(self.split.offsets), len(self.info.prefix)
        batch.inputs["position_ids"] = torch.from_numpy(document_positions(places[:, :-1], offsets, 0 if prefix else 1))
        if prefix:
            into = places[:, 1:] - offsets[np.searchsorted(offsets, places[:, 1:], side="right") - 1]
            batch.targets[torch.from_numpy(into < prefix)] = IGNORE
