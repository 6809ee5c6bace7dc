"""Share of answers that a model gives word for word."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.data.corpus import Split


def exact_match(correct: NDArray[np.float64], split: Split, documents: NDArray[np.int64]) -> float:
    """Share of documents whose answer greedy decoding would write: every id of it, the end too, is the likeliest after those before.

    Greedy decoding writes an answer if and only if, given its beginning, each of its ids is the likeliest one: so one forward pass over
    the true answers tells it, and nothing is generated.

    Args:
        correct: (N,) 1 where a predicted id is the true one, document by document.
        split: Of the documents.
        documents: Their numbers, in the order of the rows.
    """
    counts = split.predicted[documents]
    starts = np.cumsum(counts) - counts
    return float(np.minimum.reduceat(correct, starts[counts > 0]).mean())
