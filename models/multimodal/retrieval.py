"""Recall of texts by pictures, and of pictures by texts, among held-out pairs.

Shape legend: N pairs, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from models.data.batches import Batch

AT_ONCE = 1024  # pictures or texts whose nearest is looked for at a time


def text_numbers(batches: Iterable[Batch]) -> NDArray[np.int64]:
    """(N,) a number for the text of each pair, equal for equal texts."""
    numbers: dict[bytes, int] = {}
    found = []
    for batch in batches:
        ids, lengths = batch.inputs["input_ids"].numpy(), batch.inputs["attention_mask"].sum(1).tolist()
        found += [numbers.setdefault(row[:length].tobytes(), len(numbers)) for row, length in zip(ids, lengths, strict=True)]
    return np.array(found, dtype=np.int64)


def recall(vectors: NDArray[np.float32], texts: NDArray[np.int64]) -> tuple[float, float]:
    """Share of pictures whose nearest text is theirs, and of texts whose nearest picture is.

    Equal texts count alike: pairs with one caption are right for one another.

    Args:
        vectors: (2 N, D) of length 1: the picture's and the text's of each pair, one after the other.
        texts: (N,) of `text_numbers`.
    """
    pictures, words = vectors[0::2], vectors[1::2]
    return _nearest(pictures, words, texts), _nearest(words, pictures, texts)


def _nearest(asked: NDArray[np.float32], answers: NDArray[np.float32], texts: NDArray[np.int64]) -> float:
    right = 0
    for first in range(0, len(asked), AT_ONCE):
        best = (asked[first : first + AT_ONCE] @ answers.T).argmax(1)
        right += int((texts[best] == texts[first : first + AT_ONCE]).sum())
    return right / max(len(asked), 1)
