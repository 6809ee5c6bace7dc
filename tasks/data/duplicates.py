"""Counts of equal documents that bear different labels or stand in several splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data.corpus import SPLITS, SplitName
from tasks.records.data import DataCounts
from tasks.records.format import percent


def count_duplicates(
    contents: NDArray[np.uint64],
    labels: NDArray[Any],
    splits: NDArray[np.uint8],
    given: bool,
    dropped: dict[str, int],
    notes: Sequence[str],
) -> DataCounts:
    """Counts of a corpus with a remark for each.

    Args:
        contents: (n,) hash of each document's content.
        labels: (n,) class of each; negative: none.
        splits: (n,) index into `SPLITS` of each; other numbers: none.
        given: Whether the source gives splits, so that equal documents may stand in several.
        dropped: Rows left out, by the missing column.
        notes: Remarks of the reading.
    """
    remarks = [*notes]
    texts, documents = conflicting(contents, labels)
    if documents:
        remarks.append(
            f"{documents:,} documents have one of {texts:,} contents that bear different labels: no model can be right about all"
        )
    found = shared(contents, splits) if given else {}
    for (inside, other), count in found.items():
        share = percent(count / int((splits == SPLITS.index(inside)).sum()))
        remarks.append(f"{count:,} documents of the given split {inside} ({share}) stand in {other} too; they are kept in both")
    pairs = {f"{inside} in {other}": count for (inside, other), count in found.items()}
    return DataCounts(dropped=dropped, conflicting=documents, shared=pairs, notes=tuple(remarks))


def conflicting(contents: NDArray[np.uint64], labels: NDArray[Any]) -> tuple[int, int]:
    """Contents that bear more than one label, and the documents that have such a content.

    Args:
        contents: (n,) hash of each document's content.
        labels: (n,) class of each; negative: none.
    """
    labelled = labels >= 0
    contents, labels = contents[labelled], labels[labelled]
    order = np.lexsort((labels, contents))
    contents, labels = contents[order], labels[order]
    starts = np.flatnonzero(np.r_[True, contents[1:] != contents[:-1]]) if len(contents) else np.empty(0, dtype=np.int64)
    sizes = np.diff(np.r_[starts, len(contents)])
    differ = labels[starts] != labels[starts + sizes - 1]  # sorted: the first is the smallest label, the last the largest
    return int(differ.sum()), int(sizes[differ].sum())


def shared(contents: NDArray[np.uint64], splits: NDArray[np.uint8]) -> dict[tuple[SplitName, SplitName], int]:
    """(test, train) -> documents of test whose content stands in train too, and so on; without pairs that share nothing.

    Args:
        contents: (n,) hash of each document's content.
        splits: (n,) index into `SPLITS` of each; other numbers: none.
    """
    found: dict[tuple[SplitName, SplitName], int] = {}
    for second, one in enumerate(SPLITS):
        for first, other in enumerate(SPLITS[second + 1 :], second + 1):
            count = int(np.isin(contents[splits == first], contents[splits == second]).sum())
            if count:
                found[other, one] = count
    return found
