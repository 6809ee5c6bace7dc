"""Noise of one pilot's gain over another, on the documents that both read."""

from __future__ import annotations

import numpy as np

from conf.schema.measures.audit import LEAST_DOCUMENTS
from models.evaluation.bootstrap import resample
from models.evaluation.paired import DocumentScores

RESAMPLES = 1000


def error_of_gain(one: DocumentScores, other: DocumentScores) -> float | None:
    """Standard error of the difference of two figures on the same documents, by a paired bootstrap; None: too few documents.

    Documents are drawn, with the same draws for both, as rows of one document depend on each other (Efron and Tibshirani 1993).
    """
    if len(one.document) < LEAST_DOCUMENTS or not np.array_equal(one.document, other.document):
        return None
    columns = {"one": one.score, "other": other.score, "one weight": one.weight, "other weight": other.weight}
    sums = resample(columns, np.zeros(len(one.document), dtype=np.int64), 1, one.document, RESAMPLES)
    gain = sums.ratio("one", "one weight").minus(sums.ratio("other", "other weight"))
    return gain.error
