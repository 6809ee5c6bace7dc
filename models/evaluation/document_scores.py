"""One score for each held-out document, for comparing two models pair by pair.

Two models may read the same documents in ids of their own; sums over documents can be compared all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.data.batches import IGNORE, Batch
from models.data.corpus import SPLITS, Corpus, SplitName
from models.data.held_out import evaluation_batches, evaluation_documents
from models.evaluation.evaluation import collect, ids_per_byte
from models.evaluation.paired import DocumentScores


def document_scores(
    model: nn.Module, corpus: Corpus, splits: Sequence[SplitName], examples: int, batch_size: int, device: torch.device, precision: str
) -> DocumentScores:
    """Score a model on the documents of some splits; examples without a label are left out.

    Args:
        model: The model, on the device.
        corpus: In the model's own ids.
        splits: The splits judged.
        examples: Most examples, or windows, of each split.
        batch_size: Examples at once.
        device: Where the model is.
        precision: `bf16` or `fp32`.
    """
    parts = [_of_split(model, corpus, name, examples, batch_size, device, precision) for name in splits]
    return DocumentScores._make(np.concatenate(columns) for columns in zip(*parts, strict=True))


def _of_split(
    model: nn.Module, corpus: Corpus, name: SplitName, examples: int, batch_size: int, device: torch.device, precision: str
) -> DocumentScores:
    split, places = corpus.split(name), evaluation_documents(corpus, name, examples)
    rows: list[NDArray[np.int64]] = []

    def labelled() -> Iterator[Batch]:
        first = 0
        for batch in evaluation_batches(corpus, name, examples, batch_size):
            batch = batch.labels_alone()
            keep = batch.targets != IGNORE
            mine = torch.from_numpy(places[first : first + len(keep)])
            rows.append((mine[:, None].expand(keep.shape) if keep.ndim == 2 else mine)[keep].numpy())
            first += len(keep)
            yield batch

    columns = collect(model, {}, labelled(), corpus.interface.output_ids, device, precision)
    at = np.concatenate(rows)
    document, inverse, count = np.unique(at, return_inverse=True, return_counts=True)
    if corpus.info.classes:
        values, weight = columns.correct, count.astype(np.float64)
    else:
        per_byte = ids_per_byte(split, np.ones(len(split), dtype=bool), len(corpus.info.prefix))
        values, weight = columns.nll / math.log(2), count / per_byte
        if examples >= count_windows(corpus, name):  # every window of every document was read
            weight = split.sizes[document].astype(np.float64)
    before = sum(corpus.info.documents[each] for each in SPLITS[: SPLITS.index(name)])
    score = np.bincount(inverse, weights=values, minlength=len(document)).astype(np.float64)
    return DocumentScores(document + before, score, weight, count)


def count_windows(corpus: Corpus, name: SplitName) -> int:
    """Examples of a split: documents, or windows for language models."""
    return len(evaluation_documents(corpus, name, 2**62))
