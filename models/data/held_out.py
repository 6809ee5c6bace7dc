"""Batches of held-out examples, the same for every model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from models.data.batches import Batch, completion_batch, example_batch, next_token_batch
from models.data.corpus import SPLITS, Corpus, CorpusInfo, Split, SplitName


def _held_out(count: int, limit: int) -> NDArray[np.int64]:
    """Indices of the examples that are judged, at most `limit` of `count`, ascending: the same for every model."""
    return np.sort(np.random.default_rng(0).permutation(count)[:limit])


def _documents_of_windows(split: Split, info: CorpusInfo) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The document of every window of a split, and how many windows each document has."""
    counts = -(-(np.diff(split.offsets) - len(info.prefix)) // info.sequence_length)
    return np.repeat(np.arange(len(counts)), counts), counts


def _windows(
    split: Split, info: CorpusInfo, limit: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Windows that never cross documents, drawn once for all models; a document begins with its tokenizer's prefix, else with the end id.

    Returns:
        (n, b + L) ids, of which the first b are given: the document's beginning, or the ids before the window; (n,) lengths; (n,) slices;
        (n,) the place in `Split.values` of the id after the window's first.
    """
    assert info.end_id is not None
    length, beginning = info.sequence_length, info.beginning
    given, prefix = len(beginning), len(info.prefix)
    document, counts = _documents_of_windows(split, info)
    start = (np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)) * length
    chosen = _held_out(len(document), limit)
    windows = np.zeros((len(chosen), given + length), dtype=np.int64)
    lengths = np.zeros(len(chosen), dtype=np.int64)
    for row, index in enumerate(chosen):
        begin, end = split.offsets[document[index]], split.offsets[document[index] + 1]
        first = begin + prefix + start[index]
        text = split.values[first : min(first + length, end)]
        windows[row, :given] = beginning if start[index] == 0 else split.values[first - given : first]
        windows[row, given : given + len(text)] = text
        lengths[row] = given + len(text)
    after = split.offsets[document[chosen]] + prefix + start[chosen] - given + 1
    return windows, lengths, split.slices[document[chosen]], after


def evaluation_batches(corpus: Corpus, split_name: SplitName, examples: int, batch_size: int) -> Iterator[Batch]:
    """Batches of held-out examples, the same `examples` for every model.

    Causal-lm: windows of L ids within one document, drawn evenly over the split, every id predicted from those before it in its window.
    Completions: whole documents, of which the ids of completions count.
    """
    info, split = corpus.info, corpus.split(split_name)
    if info.workload == "causal-lm" and not info.completions:
        windows, lengths, slices, after = _windows(split, info, examples)
        before = sum(info.tokens[name] for name in SPLITS[: SPLITS.index(split_name)])
        for at in range(0, len(windows), batch_size):
            some = slice(at, at + batch_size)
            batch = next_token_batch(windows[some], lengths[some], slices[some], given=len(info.beginning))
            yield replace(batch, places=torch.from_numpy(before + after[some]))
        return
    chosen = _held_out(len(split), examples)
    made = completion_batch if info.completions else example_batch
    for at in range(0, len(chosen), batch_size):
        yield made(split, info, chosen[at : at + batch_size])


def pair_batches(corpus: Corpus, batch_size: int) -> Iterator[Batch]:
    """Batches of the texts of all scored pairs, the two of a pair one after the other."""
    for at in range(0, len(corpus.pairs), batch_size):
        yield example_batch(corpus.pairs, corpus.info, np.arange(at, min(at + batch_size, len(corpus.pairs))))


def evaluation_documents(corpus: Corpus, split_name: SplitName, examples: int) -> NDArray[np.int64]:
    """Number of the document that each held-out example of `evaluation_batches` comes from, in the same order."""
    split = corpus.split(split_name)
    if corpus.info.workload != "causal-lm" or corpus.info.completions:
        return _held_out(len(split), examples)
    document = _documents_of_windows(split, corpus.info)[0]
    return document[_held_out(len(document), examples)]


def batch_count(corpus: Corpus, split_name: SplitName, examples: int, batch_size: int) -> int:
    """Batches of `evaluation_batches`."""
    return -(-len(evaluation_documents(corpus, split_name, examples)) // batch_size)
