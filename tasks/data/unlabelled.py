"""Examples without label: which split they join, and labels hidden on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from conf.errors import UserError
from conf.schema.data import Data
from models.data.corpus import Split, SplitName
from tasks.data.readers import Document


def by_label(documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """Documents with a label, and those without."""
    return [each for each in documents if each.label is not None], [each for each in documents if each.label is None]


def without_held_out(labelled: Sequence[Document], unlabelled: Sequence[Document]) -> tuple[list[Document], list[str]]:
    """Leave out rows without label of given held-out splits: nothing can be judged by them, and no model may train on them.

    Returns:
        The others, and a remark where some were left out.

    Raises:
        UserError: A given split has no row with a label.
    """
    judged = {document.split for document in labelled}
    for document in unlabelled:
        if document.split not in (None, "train", *judged):
            remedy = f"{document.origin} is one of them: leave this split out to have it drawn from train."
            raise UserError.about(f"data.splits.{document.split}", "a split without labels", "a split that models can be judged by", remedy)
    kept = [document for document in unlabelled if document.split in (None, "train")]
    left_out = len(unlabelled) - len(kept)
    return kept, [f"{left_out:,} rows without label of given held-out splits left out"] if left_out else []


def train_on(unlabelled: Sequence[Document], splits: dict[SplitName, list[Document]]) -> list[str]:
    """Add documents without label to the training split, but for those that a held-out document equals.

    Args:
        unlabelled: Documents without label.
        splits: Of the labelled documents; changed.

    Returns:
        A remark where some were left out.
    """
    held_out = {document.key for name, part in splits.items() if name != "train" for document in part}
    added = [document for document in unlabelled if document.key not in held_out]
    splits["train"] += added
    left_out = len(unlabelled) - len(added)
    return [f"{left_out:,} rows without label left out, which held-out rows equal"] if left_out else []


def hide_labels(train: Split, data: Data) -> Split:
    """The training split with `data.max_labels` of its labels, drawn by `data.seed`.

    Raises:
        UserError: It has fewer.
    """
    places = np.flatnonzero(train.labels >= 0)
    if data.max_labels is None:
        return train
    if data.max_labels > len(places):
        raise UserError.about("data.max_labels", data.max_labels, f"at most the {len(places)} labels of the training part", "Lower it.")
    labels = np.full_like(train.labels, -1)
    kept = np.random.default_rng(data.seed).permutation(places)[: data.max_labels]
    labels[kept] = train.labels[kept]
    return replace(train, labels=labels)


def label_counts(train: Split) -> dict[str, int]:
    """Examples with a label, and without, as a record of the data holds them."""
    return {"labelled": int((train.labels >= 0).sum()), "unlabelled": int((train.labels < 0).sum())}
