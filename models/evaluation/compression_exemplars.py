"""Examples that compression loses: majority answers over seeds compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def modal(predictions: NDArray[np.integer]) -> NDArray[np.int64]:
    """The commonest answer of several models to each example, (N,) of (S, N); the smallest of those that are equally common."""
    ordered = np.sort(predictions, axis=0)  # votes are counted by seed: a vocabulary of votes for each token would not fit
    votes = np.stack([(ordered == each).sum(0, dtype=np.int32) for each in ordered])
    return np.take_along_axis(ordered, votes.argmax(0)[None], axis=0)[0].astype(np.int64)


def compression_identified(teachers: NDArray[np.integer], students: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Examples whose commonest answer over seeds the students have lost: Hooker et al. 2019, arXiv:1911.05248.

    One student's odd answer may be the chance of its seed; one that most students share against most of their teachers is due to the
    smaller size, or to the way down to it.

    Args:
        teachers: (S, N) first choices of the uncompressed model, a row for each seed; one row where there is one.
        students: (T, N) those of the students.

    Returns:
        (N,) whether fewer students give the teachers' commonest answer than another one.

    Raises:
        ValueError: The arrays hold different examples.
    """
    if teachers.ndim != 2 or students.ndim != 2 or teachers.shape[1] != students.shape[1]:
        raise ValueError(f"got answers of shape {teachers.shape} and {students.shape}; allowed: (seeds, examples) with the same examples")
    theirs, ours = modal(teachers), modal(students)
    return np.sum(students == theirs, axis=0) < np.sum(students == ours, axis=0)  # an answer as common as the commonest is not lost
