"""Quality of a model on held-out documents, alone and against its teachers.

Shape legend: N rows of a batch, V vocabulary or classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.alignment.teacher import AlignedTeacher
from models.architectures.token_answers import TokenAnswers, spread_evenly
from models.base.quality import Quality
from models.data.batches import IGNORE, Batch
from models.data.corpus import Corpus, Split, SplitName
from models.losses.loss import HiddenSignal, to_at_least_fp32
from models.signals.sources import hidden_rows, rows, split_head

ECE_BINS = 15
CHUNK_ELEMENTS = 64 * 49152  # logits judged at once, of each model
LazyLogits = Callable[[slice | Tensor], Tensor]  # from rows to their logits
AGAINST = ("nll", "accuracy", "agreement", "kl")


class RowFigures(NamedTuple):
    """One value for each held-out row; every figure is computed from them."""

    nll: np.ndarray  # nats
    correct: np.ndarray  # 0/1
    predicted: np.ndarray  # id
    target: np.ndarray  # id
    confidence: np.ndarray  # largest probability
    slice: np.ndarray  # index
    against: dict[str, dict[str, np.ndarray]]  # teacher -> nll, accuracy, agreement, kl


def joined(parts: Sequence[RowFigures]) -> RowFigures:
    """The figures of parts of the held-out batches, one after another."""
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in RowFigures._fields if name != "against"}
    against = {name: {key: np.concatenate([part.against[name][key] for part in parts]) for key in AGAINST} for name in parts[0].against}
    return RowFigures(**columns, against=against)


def collect(
    model: nn.Module,
    teachers: Mapping[str, nn.Module],
    batches: Iterable[Batch],
    vocabulary: int | None,
    device: torch.device,
    precision: str,
) -> RowFigures:
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
    with torch.no_grad(), autocast(device, precision):
        forward = {id(each): lazy_logits(each, vocabulary) for each in (model, *teachers.values())}
        for batch in batches:
            moved = batch.to(device)
            targets = moved.targets.flatten()
            keep = targets != IGNORE
            targets = targets[keep]
            signals = {key: run(moved, keep) for key, run in forward.items()}
            spread = batch.slices[:, None].expand(batch.targets.shape) if batch.targets.ndim == 2 else batch.slices
            parts.setdefault("slice", []).append(spread.flatten()[keep.cpu()])
            size = max(CHUNK_ELEMENTS // vocabulary, 1) if vocabulary else max(len(targets), 1)
            for start in range(0, len(targets), size):
                part = slice(start, start + size)
                logits = {key: to_at_least_fp32(signal(part)) for key, signal in signals.items()}
                judged = {name: logits[id(teacher)] for name, teacher in teachers.items()}
                with torch.autocast(device.type, enabled=False):
                    figures = _row_figures(logits[id(model)], judged, targets[part])
                figures["accuracy"] = (figures["predicted"] == targets[part]).double()
                for prefix, each in (("", model), *((f"{name}.", teacher) for name, teacher in teachers.items())):
                    if isinstance(signal := signals[id(each)], AlignedLogits):
                        signal.correct(figures, prefix, part)
                for key, value in figures.items():
                    parts.setdefault(key, []).append(value.cpu())
    whole = {key: torch.cat(values).numpy() for key, values in parts.items()}
    against = {name: {k: whole[f"{name}.{k}"] for k in AGAINST} for name in teachers}
    return RowFigures(whole["nll"], whole["accuracy"], whole["predicted"], whole["target"], whole["confidence"], whole["slice"], against)


def lazy_logits(model: nn.Module, vocabulary: int | None) -> Callable[[Batch, Tensor], LazyLogits]:
    """Return a function for a model's logits, a few rows at a time: those of a large vocabulary would not fit as a whole."""
    model.eval()
    if isinstance(model, TokenAnswers):
        return lambda batch, keep: _listed(model, batch, keep)
    if isinstance(model, AlignedTeacher):
        return lambda batch, keep: AlignedLogits(model, batch, keep)
    head = split_head(model) if vocabulary is not None else None
    if head is None:

        def whole(batch: Batch, keep: Tensor) -> LazyLogits:
            logits = rows(model, batch, vocabulary)[keep]
            return lambda part: logits[part]

        return whole
    weight, bias = head.weight[:vocabulary], None if head.bias is None else head.bias[:vocabulary]
    if torch.is_autocast_enabled(head.weight.device.type):  # cast once, and not for each part
        weight = weight.to(torch.get_autocast_dtype(head.weight.device.type))

    def chunked(batch: Batch, keep: Tensor) -> LazyLogits:
        hidden = hidden_rows(model, batch)[keep]
        return lambda part: HiddenSignal(hidden[part], weight, bias).logits

    return chunked


class AlignedLogits:
    """Answers of a teacher with another tokenizer to the rows of a batch, as logits of the student's ids.

    Its nll are by the chain rule. Its choices are compared where a span begins alone: elsewhere it is known that its token goes on.

    Attributes:
        begins: (N,) whether a span begins with the row.
    """

    def __init__(self, model: AlignedTeacher, batch: Batch, keep: Tensor) -> None:
        self._log_p, self._nll, self.begins = (each[keep] for each in model.answers(batch))

    def __call__(self, part: slice | Tensor) -> Tensor:
        """Logits of some rows."""
        return self._log_p[part]

    def correct(self, figures: dict[str, Tensor], prefix: str, part: slice) -> None:
        """Put right the figures of some rows under a prefix: those that cannot be compared become NaN."""
        figures[f"{prefix}nll"] = self._nll[part]
        for name in ("accuracy", "agreement", "kl"):
            if f"{prefix}{name}" in figures:
                figures[f"{prefix}{name}"] = torch.where(self.begins[part], figures[f"{prefix}{name}"], torch.nan)


def _listed(model: TokenAnswers, batch: Batch, keep: Tensor) -> LazyLogits:
    parts = [part[keep] for part in model.answers(batch.places, batch.targets)]
    return lambda part: spread_evenly(parts[0][part], parts[1][part], parts[2][part], model.config.vocab_size)


def _row_figures(own: Tensor, teachers: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
    """Figures of each row of logits, and of the same rows of each teacher."""
    log_q, at = functional.log_softmax(own, dim=-1), targets[:, None]
    top, predicted = log_q.max(-1)
    figures = {"nll": -log_q.gather(-1, at)[:, 0], "target": targets, "predicted": predicted, "confidence": top.exp()}
    for name, theirs in teachers.items():
        log_p = functional.log_softmax(theirs, dim=-1)
        first = log_p.argmax(-1)
        figures[f"{name}.nll"] = -log_p.gather(-1, at)[:, 0]
        figures[f"{name}.accuracy"] = (first == targets).float()
        figures[f"{name}.agreement"] = (first == predicted).float()
        # In the teacher's place, which is not needed any more; p log p is 0 where p is.
        figures[f"{name}.kl"] = torch.linalg.vecdot(
            log_p.exp(), log_p.sub_(log_q).nan_to_num_(nan=0.0, posinf=torch.inf, neginf=0.0)
        ).clamp(min=0.0)
    return figures


def quality(columns: RowFigures, corpus: Corpus, split: str) -> Quality:
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
            **_figures(columns, mask, ids_per_byte(part, part.slices == index, len(info.prefix)), info.classes),
        }
        for index in np.unique(columns.slice)
        for mask in [columns.slice == index]
    }
    everything, documents = np.ones(len(columns.nll), dtype=bool), np.ones(len(part), dtype=bool)
    return Quality(_figures(columns, everything, ids_per_byte(part, documents, len(info.prefix)), info.classes), slices)


def ids_per_byte(part: Split, documents: np.ndarray, prefix: int = 0) -> float:
    """Ids for each byte of text, of the documents that a mask (n,) chooses, without the `prefix` that begins each of them."""
    return float((part.predicted[documents] - prefix).sum() / max(int(part.sizes[documents].sum()), 1))


def _figures(columns: RowFigures, mask: np.ndarray, per_byte: float, classes: int) -> dict[str, float]:
    nll = float(columns.nll[mask].mean(dtype=np.float64))
    figures = {"nll": nll} | _means({"accuracy": columns.correct}, mask)
    if classes:
        figures["macro_f1"] = macro_f1(columns.predicted[mask], columns.target[mask])
        figures["ece"] = expected_calibration_error(columns.confidence[mask], columns.correct[mask])
    else:
        figures["bits_per_byte"] = nll / math.log(2) * per_byte
        figures["perplexity"] = math.exp(min(nll, 700.0))
    for name, values in columns.against.items():
        named = {"agreement": f"agreement_{name}", "kl": f"kl_{name}", "nll": f"{name}_nll", "accuracy": f"{name}_accuracy"}
        figures |= _means({own: values[key] for key, own in named.items()}, mask)
    return figures


def _means(columns: Mapping[str, np.ndarray], mask: np.ndarray) -> dict[str, float]:
    """Means over rows of a mask that can be compared; no figure where there is none."""
    found = {}
    for name, values in columns.items():
        some = values[mask]
        some = some[~np.isnan(some)]
        if len(some):
            found[name] = float(some.mean(dtype=np.float64))
    return found


def macro_f1(predicted: np.ndarray, target: np.ndarray) -> float:
    """Mean over the classes that occur of `2 tp / (2 tp + fp + fn)`; in [0, 1]."""
    classes, place = np.unique(target, return_inverse=True)
    answer = np.searchsorted(classes, predicted).clip(max=len(classes) - 1)
    count, answered, right = (
        np.bincount(found, minlength=len(classes)) for found in (place, answer[classes[answer] == predicted], place[predicted == target])
    )
    return float((2 * right / (count + answered)).mean())


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Mean gap between confidence and accuracy over 15 bins of equal width; in [0, 1]. Guo et al. 2017, arXiv:1706.04599."""
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - correct, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Autocast to bf16 where that is the precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
