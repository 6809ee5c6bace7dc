"""Scores of a stored model on held-out documents, to compare two models by.

The scores are stored, so they are never computed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from conf.schema.ladder import Ladder
from models.base.device import precision_of
from models.base.numerics import NUMERICS
from models.data.corpus import SplitName
from models.evaluation.paired import DocumentScores
from tasks.records.run import DataRecord
from tasks.runtime.runs.run_registry import Context, store_of
from tasks.store.cached import Entry, Write, find_or_compute

NPZ = "scores.npz"


def stored_scores(
    name: str,
    folder: Path,
    weights: str,
    data: DataRecord,
    splits: Sequence[SplitName],
    examples: int,
    ladder: Ladder,
    context: Context,
) -> DocumentScores:
    """Find or compute the scores of a model.

    Args:
        name: Of the model.
        folder: Where it lies.
        weights: Hash of its weights.
        data: The corpus that it is judged on.
        splits: Of the corpus.
        examples: Most examples of a split.
        ladder: Its workload, and how its last stage computes.
        context: For whom it is judged.
    """
    precision = precision_of(ladder, ladder.stages[-1].training)
    identity = {
        "kind": "scores",
        "numerics": NUMERICS,
        "weights": weights,
        "data": data.content_hash,
        "splits": list(splits),
        "examples": examples,
        "precision": precision,
    }

    def compute() -> Write:
        scores = _computed(folder, data, splits, examples, ladder, precision)
        return lambda target: np.savez(target / NPZ, **scores._asdict())

    found = find_or_compute(store_of(context), Entry("scores", name, identity, _read), context.made, compute)
    return _read(found.folder)


def _computed(folder: Path, data: DataRecord, splits: Sequence[SplitName], examples: int, ladder: Ladder, precision: str) -> DocumentScores:
    import torch  # where something is computed

    from models.architectures.checkpoint import load_model
    from models.base.device import resolve_device, use_threads
    from models.evaluation.document_scores import document_scores
    from models.students.vocabulary import read_kept, reduce_corpus

    use_threads(ladder)
    device = torch.device(resolve_device(ladder.compute.device))
    corpus = reduce_corpus(data.corpus(), read_kept(folder))
    model = load_model(folder, ladder.workload).to(device)
    return document_scores(model, corpus, splits, examples, ladder.evaluation.batch_size, device, precision)


def _read(folder: Path) -> DocumentScores:
    with np.load(folder / NPZ, allow_pickle=False) as arrays:
        return DocumentScores(**{name: arrays[name] for name in DocumentScores._fields})
