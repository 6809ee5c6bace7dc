"""Scores of held-out documents, by which two models are compared pair by pair.

Shape legend: D documents.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class DocumentScores(NamedTuple):
    """Sums over the judged rows of each document; (D,) each.

    Attributes:
        document: Number of the document in the corpus: its place in its split, after all documents of the splits before.
        score: Right answers; for language models bits.
        weight: Examples; for language models bytes of text. The figure of a model is the sum of scores over the sum of weights.
        rows: Judged examples, or tokens.
    """

    document: NDArray[np.int64]
    score: NDArray[np.float64]
    weight: NDArray[np.float64]
    rows: NDArray[np.int64]


def without(scores: DocumentScores, documents: NDArray[np.int64]) -> DocumentScores:
    """The scores of all documents but these."""
    keep = ~np.isin(scores.document, documents)
    return DocumentScores._make(column[keep] for column in scores)
