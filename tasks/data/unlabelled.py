"""Examples without label: how many there are, and labels hidden on request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.schema.data import Data
from models.data.corpus import SPLITS, Split
from tasks.data.splits import EQUAL_TO_HELD_OUT, TEST, VALID, Parts


def unlabelled_notes(parts: Parts, given: Parts, unlabelled: NDArray[np.bool_], first: dict[str, str]) -> list[str]:
    """Remarks about documents without label that no model may train on, as they are held out or a held-out document equals them.

    Args:
        parts: (n,) part of each document.
        given: (n,) part that the source gives it.
        unlabelled: (n,) those without label.
        first: Given split -> where its first document without label stands.

    Raises:
        UserError: A given held-out split has no document with a label.
    """
    notes = []
    held_out = unlabelled & ((given == VALID) | (given == TEST))
    for part in (VALID, TEST):
        if (held_out & (given == part)).any() and not ((given == part) & ~unlabelled).any():
            remedy = f"{first[SPLITS[part]]} is one of them: leave this split out to have it drawn from train."
            raise UserError.about(f"data.splits.{SPLITS[part]}", "a split without labels", "a split that models can be judged by", remedy)
    if count := int(held_out.sum()):
        notes.append(f"{count:,} rows without label of given held-out splits left out")
    if count := int((unlabelled & ~held_out & (parts == EQUAL_TO_HELD_OUT)).sum()):
        notes.append(f"{count:,} rows without label left out, which held-out rows equal")
    return notes


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
