"""Figures of guesses that read no input: the majority class, unigram frequencies."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from models.data.batches import IGNORE
from models.data.corpus import Corpus, SplitName
from models.data.held_out import evaluation_batches, evaluation_documents
from models.evaluation.evaluation import ids_per_byte, macro_f1

CHUNK = 1 << 22  # ids counted at once: a mapped corpus is never in memory as a whole
BATCH = 256


class Baseline(NamedTuple):
    """A guess that knows the frequencies of the training labels or ids, and nothing of the input.

    Attributes:
        name: `majority class` or `unigram`.
        metrics: The same names and units as a model's figures: `nll` (nats), `accuracy`; for classification `macro_f1`, for causal-lm
            `bits_per_byte` and `perplexity`.
        rows: Held-out rows that it was judged on.
    """

    name: str
    metrics: dict[str, float]
    rows: int


def baseline(corpus: Corpus, split: SplitName = "valid", examples: int | None = None) -> Baseline:
    """The guess to beat on the held-out rows that models are judged on.

    `nll` is that of the training frequencies, with one added to each count so that none is 0. `accuracy` is that of the best constant
    answer on the held-out rows themselves, so that no model that always gives one answer is above it.

    Args:
        corpus: Its training part gives the frequencies.
        split: The held-out part.
        examples: Held-out examples, as of `evaluation_batches`; None: all.
    """
    info = corpus.info
    outputs = info.classes or cast(int, info.vocabulary)
    counts = training_counts(corpus).astype(np.float64) + 1
    targets = held_out_targets(corpus, split, examples)
    held_out = np.bincount(targets, minlength=outputs)
    nll = float(-(held_out / max(len(targets), 1) * np.log(counts / counts.sum())).sum())
    metrics = {"nll": nll, "accuracy": float(held_out.max() / max(len(targets), 1))}
    if info.classes:
        metrics["macro_f1"] = macro_f1(np.full(len(targets), held_out.argmax()), targets)
        return Baseline("majority class", metrics, len(targets))
    part = corpus.split(split)
    metrics["bits_per_byte"] = nll / math.log(2) * ids_per_byte(part, np.ones(len(part), dtype=bool), len(info.prefix))
    metrics["perplexity"] = math.exp(min(nll, 700.0))
    return Baseline("unigram", metrics, len(targets))


def training_counts(corpus: Corpus) -> NDArray[np.int64]:
    """Count of each class, or each id of the vocabulary, in the training part; rows without a label do not count."""
    info, split = corpus.info, corpus.split("train")
    values, outputs = (split.labels, info.classes) if info.classes else (split.values, cast(int, info.vocabulary))
    counts = np.zeros(outputs, dtype=np.int64)
    for first in range(0, len(values), CHUNK):
        some = np.asarray(values[first : first + CHUNK], dtype=np.int64)
        if split.counted is not None:
            some = some[split.counted[first : first + CHUNK] > 0]
        counts += np.bincount(some[some >= 0], minlength=outputs)
    for index in info.prefix:  # which no model has to predict at the head of a document
        counts[index] -= len(split)
    return counts


def held_out_targets(corpus: Corpus, split: SplitName, examples: int | None = None) -> NDArray[np.int64]:
    """The classes or ids that models are judged by on held-out examples, in the order of `evaluation_batches`."""
    limit = np.iinfo(np.int64).max if examples is None else examples
    if corpus.info.classes:
        targets = np.asarray(corpus.split(split).labels, dtype=np.int64)[evaluation_documents(corpus, split, limit)]
        return targets[targets >= 0]
    batches = evaluation_batches(corpus, split, limit, BATCH)
    return np.concatenate([batch.targets[batch.targets != IGNORE].numpy() for batch in batches])
