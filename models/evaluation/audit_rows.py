"""One pass over held-out rows: predictions of student, teachers, control.

Each model runs once for each batch, its logits a few rows at a time: memory is bounded by the hidden states of a batch and
`CHUNK_ELEMENTS` logits, whatever the vocabulary. A few numbers of each row are kept.

Shape legend: N rows that count, V vocabulary or classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from conf.errors import UserError
from models.data.batches import IGNORE, Batch
from models.evaluation.evaluation import CHUNK_ELEMENTS, AlignedLogits, LazyLogits, autocast, lazy_logits
from models.losses.loss import forward_kl, to_at_least_fp32

TEACHERS = ("parent", "root")
Floats = NDArray[np.float32]
Kind = TypeVar("Kind", "Predictions", "TeacherComparison")


class Predictions(NamedTuple):
    """The predictions of one model; (N,) each."""

    predicted: NDArray[np.int32]  # the most probable id or class
    confidence: Floats  # its probability
    nll: Floats  # of the label, nats
    brier: Floats  # sum over V of (p - onehot)^2, in [0, 2]


class TeacherComparison(NamedTuple):
    """The student compared with one teacher; (N,) each."""

    kl: Floats  # KL(teacher || student), nats
    theirs: Floats  # the teacher's probability of the student's prediction


class AuditRows(NamedTuple):
    """All rows of an audit; (N,) each.

    Attributes:
        target: The label.
        slice: Index of the slice.
        example: Which held-out example the row belongs to, in the order of evaluation.
        position: Its place in that example; 0 for classification.
        document: Which document the example comes from: the unit that is resampled.
        predictions: `student`, `parent`, `root` and perhaps `control`.
        comparisons: `parent` and `root`.
    """

    target: NDArray[np.int32]
    slice: NDArray[np.int32]
    example: NDArray[np.int32]
    position: NDArray[np.int32]
    document: NDArray[np.int64]
    predictions: dict[str, Predictions]
    comparisons: dict[str, TeacherComparison]


def joined_rows(parts: Sequence[AuditRows]) -> AuditRows:
    """The rows of parts of the held-out batches, one after another."""
    predictions = {name: _joined(Predictions, [part.predictions[name] for part in parts]) for name in parts[0].predictions}
    comparisons = {name: _joined(TeacherComparison, [part.comparisons[name] for part in parts]) for name in parts[0].comparisons}
    nested = {"predictions": predictions, "comparisons": comparisons}
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in AuditRows._fields if name not in nested}
    return AuditRows(**columns, **nested)


def _joined(kind: Callable[..., Kind], parts: Sequence[Kind]) -> Kind:
    return kind(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def audit_rows(
    models: Mapping[str, nn.Module],
    batches: Iterable[Batch],
    documents: NDArray[np.int64],
    vocabulary: int | None,
    device: torch.device,
    precision: str,
    chunk_elements: int = CHUNK_ELEMENTS,
    first: int = 0,
) -> AuditRows:
    """Run all models over all held-out rows.

    Args:
        models: `student`, `parent`, `root`, perhaps `control`, on the device; one model under two names runs once.
        batches: Held-out batches.
        documents: Document of each held-out example, in the batches' order.
        vocabulary: Of causal LMs; None for classifiers.
        device: Where all models are.
        precision: `bf16` or `fp32`.
        chunk_elements: Logits that exist at once, for each model.
        first: Number of the first example, where others come before these batches.

    Raises:
        UserError: An example has no label.
    """
    parts: dict[str, list[Tensor]] = {}
    with torch.no_grad(), autocast(device, precision):
        forward = {id(model): lazy_logits(model, vocabulary) for model in models.values()}
        for batch in batches:
            moved, places = batch.to(device), _places(batch, first)
            first += len(batch.targets)
            keep = moved.targets.flatten() != IGNORE
            targets = moved.targets.flatten()[keep]
            if bool((targets < 0).any()):
                raise UserError.about(
                    "audit.enabled", True, "false, where held-out examples have no label", "Label them, or set audit.enabled=false."
                )
            signals = {key: run(moved, keep) for key, run in forward.items()}
            compared = _compared(signals.values(), targets)
            _add(parts, {key: value[keep.cpu()][compared.cpu()] for key, value in places.items()})
            targets = targets[compared]
            size = max(chunk_elements // vocabulary, 1) if vocabulary else max(len(targets), 1)
            for start in range(0, len(targets), size):
                part = slice(start, start + size)
                logits = {key: to_at_least_fp32(signal(compared[part])) for key, signal in signals.items()}
                with torch.autocast(device.type, enabled=False):
                    _add(parts, _columns({name: logits[id(model)] for name, model in models.items()}, targets[part]))
    whole = {key: torch.cat(values).numpy() for key, values in parts.items()}
    return _rows(whole, models, documents)


def _compared(signals: Iterable[LazyLogits], targets: Tensor) -> Tensor:
    """Places of the rows that are compared: beside a teacher with another tokenizer those where a span begins."""
    begins = torch.ones_like(targets, dtype=torch.bool)
    for signal in signals:
        if isinstance(signal, AlignedLogits):
            begins = begins & signal.begins
    return begins.nonzero()[:, 0]


def _places(batch: Batch, first: int) -> dict[str, Tensor]:
    """Example, position and slice of every row of a batch."""
    shape = batch.targets.shape
    example = torch.arange(first, first + shape[0])
    if len(shape) == 1:
        return {"example": example, "position": torch.zeros_like(example), "slice": batch.slices}
    wide = {"example": example[:, None], "position": torch.arange(shape[1])[None, :], "slice": batch.slices[:, None]}
    return {key: value.expand(shape).flatten() for key, value in wide.items()}


def _columns(logits: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
    """Columns of a chunk: `<model>.<field>`."""
    columns: dict[str, Tensor] = {"target": targets}
    student = logits["student"]
    chosen = student.argmax(-1, keepdim=True)
    for name, theirs in logits.items():
        logs = theirs.log_softmax(-1)
        p = logs.exp()
        label = p.gather(-1, targets[:, None])[:, 0]
        columns[f"{name}.confidence"], columns[f"{name}.predicted"] = p.max(-1)
        columns[f"{name}.nll"] = -logs.gather(-1, targets[:, None])[:, 0]
        columns[f"{name}.brier"] = p.square().sum(-1) - 2 * label + 1
        if name in TEACHERS:
            columns[f"{name}.kl"] = forward_kl(theirs, student)
            columns[f"{name}.theirs"] = p.gather(-1, chosen)[:, 0]
    return columns


def _add(parts: dict[str, list[Tensor]], columns: Mapping[str, Tensor]) -> None:
    for key, value in columns.items():
        parts.setdefault(key, []).append(value.cpu())


def _rows(whole: Mapping[str, NDArray[np.generic]], models: Mapping[str, nn.Module], documents: NDArray[np.int64]) -> AuditRows:
    def floats(key: str) -> Floats:
        return whole[key].astype(np.float32)

    def whole_numbers(key: str) -> NDArray[np.int32]:
        return whole[key].astype(np.int32)

    predictions = {
        name: Predictions(whole_numbers(f"{name}.predicted"), floats(f"{name}.confidence"), floats(f"{name}.nll"), floats(f"{name}.brier"))
        for name in models
    }
    comparisons = {name: TeacherComparison(floats(f"{name}.kl"), floats(f"{name}.theirs")) for name in TEACHERS if name in models}
    example = whole_numbers("example")
    target, slices, position = (whole_numbers(name) for name in ("target", "slice", "position"))
    return AuditRows(target, slices, example, position, documents[example], predictions, comparisons)
