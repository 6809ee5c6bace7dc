"""Padding, lengths and answers for all engines of classifiers; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.engines.base import Prediction

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def padded(texts: Sequence[NDArray[Any]], pad: int) -> dict[str, NDArray[np.int64]]:
    """`input_ids` and `attention_mask` (B, L) of texts of ids, padded on the right."""
    longest = max(map(len, texts))
    ids = np.full((len(texts), longest), pad, dtype=np.int64)
    mask = np.zeros((len(texts), longest), dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return {"input_ids": ids, "attention_mask": mask}


def answers(logits: NDArray[Any], labels: Sequence[str]) -> list[Prediction]:
    """Answers of (B, K) logits."""
    wide = logits.astype(np.float64)
    odds = np.exp(wide - wide.max(-1, keepdims=True))
    probabilities = odds / odds.sum(-1, keepdims=True)
    best = probabilities.argmax(-1)
    return [Prediction(labels[int(k)], float(row[k]), tuple(row.tolist())) for k, row in zip(best, probabilities, strict=True)]


def length_of(positions: int | None, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> int | None:
    """The least of a model's positions, its tokenizer's length and a given one; None: none of them is known."""
    own = tokenizer.model_max_length if tokenizer.model_max_length < 10**9 else None  # transformers writes 1e30 for "none"
    return min((each for each in (positions, own, max_length) if each is not None), default=None)
