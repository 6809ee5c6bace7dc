"""Quality of a model on held-out documents, at temperature 1, alone and against its teachers.

Shape legend: N rows of a batch, V vocabulary or classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from models.batches import Batch
from models.corpus import Corpus, Split, SplitName
from models.objectives import IGNORE, cross_entropy, forward_kl
from models.quality import Quality
from models.signals import rows

ECE_BINS = 15
AGAINST = ("nll", "accuracy", "agreement", "kl")


class Columns(NamedTuple):
    """One value per held-out row; the raw material of every figure."""

    nll: np.ndarray  # nats
    correct: np.ndarray  # 0/1
    predicted: np.ndarray  # id
    target: np.ndarray  # id
    confidence: np.ndarray  # largest probability
    slice: np.ndarray  # index
    against: dict[str, dict[str, np.ndarray]]  # teacher -> nll, accuracy, agreement, kl


def collect(
    model: nn.Module,
    teachers: Mapping[str, nn.Module],
    batches: Iterable[Batch],
    vocabulary: int | None,
    device: torch.device,
    precision: str,
) -> Columns:
    """Run a model and its teachers over held-out batches.

    Args:
        model: The model judged.
        teachers: Name (`parent`, `root`) to model; one model under two names runs once.
        batches: Held-out batches.
        vocabulary: Of a causal LM; None for classifiers.
        device: Where all models are.
        precision: `bf16` or `fp32`.
    """
    parts: dict[str, list[Tensor]] = {}
    model.eval()
    with torch.no_grad(), _autocast(device, precision):
        for batch in batches:
            moved = batch.to(device)
            targets = moved.targets.flatten()
            keep = targets != IGNORE
            targets = targets[keep]
            own = rows(model, moved, vocabulary)[keep].float()
            per_row = {"nll": cross_entropy(own, targets), "target": targets, "predicted": own.argmax(-1)}
            per_row["confidence"] = own.softmax(-1).amax(-1)
            spread = batch.slices[:, None].expand(batch.targets.shape) if batch.targets.ndim == 2 else batch.slices
            per_row["slice"] = spread.flatten()[keep.cpu()]
            seen: dict[int, Tensor] = {}
            for name, teacher in teachers.items():
                if id(teacher) not in seen:
                    seen[id(teacher)] = rows(teacher.eval(), moved, vocabulary)[keep].float()
                theirs = seen[id(teacher)]
                per_row[f"{name}.nll"] = cross_entropy(theirs, targets)
                per_row[f"{name}.accuracy"] = (theirs.argmax(-1) == targets).float()
                per_row[f"{name}.agreement"] = (theirs.argmax(-1) == per_row["predicted"]).float()
                per_row[f"{name}.kl"] = forward_kl(theirs, own)
            for key, value in per_row.items():
                parts.setdefault(key, []).append(value.cpu())
    whole = {key: torch.cat(values).numpy() for key, values in parts.items()}
    against = {name: {k: whole[f"{name}.{k}"] for k in AGAINST} for name in teachers}
    correct = (whole["predicted"] == whole["target"]).astype(np.float64)
    return Columns(whole["nll"], correct, whole["predicted"], whole["target"], whole["confidence"], whole["slice"], against)


def quality(columns: Columns, corpus: Corpus, split: str) -> Quality:
    """Turn rows into figures.

    Causal-lm: `nll` (nats/token), `bits_per_byte` (with the ratio of ids to bytes that the split, or its slice, has as a whole),
    `perplexity`, `accuracy` (top-1). Classification: `accuracy`, `macro_f1`, `nll`, `ece`. For each teacher `agreement_<name>`,
    `kl_<name>` (nats), `<name>_nll` and `<name>_accuracy`.
    """
    info = corpus.info
    part = corpus.split(cast(SplitName, split))
    slices = {
        info.slice_names[index]: {
            "count": float(mask.sum()),
            **_figures(columns, mask, _ids_per_byte(part, part.slices == index), info.classes),
        }
        for index in np.unique(columns.slice)
        for mask in [columns.slice == index]
    }
    everything, documents = np.ones(len(columns.nll), dtype=bool), np.ones(len(part), dtype=bool)
    return Quality(_figures(columns, everything, _ids_per_byte(part, documents), info.classes), slices)


def _ids_per_byte(part: Split, documents: np.ndarray) -> float:
    return float(np.diff(part.offsets)[documents].sum() / max(int(part.sizes[documents].sum()), 1))


def _figures(columns: Columns, mask: np.ndarray, per_byte: float, classes: int) -> dict[str, float]:
    nll = float(columns.nll[mask].mean(dtype=np.float64))
    figures = {"nll": nll, "accuracy": float(columns.correct[mask].mean())}
    if classes:
        figures["macro_f1"] = macro_f1(columns.predicted[mask], columns.target[mask])
        figures["ece"] = expected_calibration_error(columns.confidence[mask], columns.correct[mask])
    else:
        figures["bits_per_byte"] = nll / math.log(2) * per_byte
        figures["perplexity"] = math.exp(min(nll, 700.0))
    for name, values in columns.against.items():
        means = {key: float(values[key][mask].mean(dtype=np.float64)) for key in AGAINST}
        figures |= {f"agreement_{name}": means["agreement"], f"kl_{name}": means["kl"]}
        figures |= {f"{name}_nll": means["nll"], f"{name}_accuracy": means["accuracy"]}
    return figures


def macro_f1(predicted: np.ndarray, target: np.ndarray) -> float:
    """Mean over the classes that occur of `2 tp / (2 tp + fp + fn)`; in [0, 1]."""
    from sklearn.metrics import f1_score

    zero: Any = 0  # the library's annotation says str alone

    return float(f1_score(target, predicted, average="macro", labels=np.unique(target), zero_division=zero))


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Mean gap between confidence and accuracy over 15 bins of equal width; in [0, 1]. Guo et al. 2017, arXiv:1706.04599."""
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - correct, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
