"""Classes of tokens by their text, in which errors are judged apart."""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.data import tokenizers

CLASSES = ("word", "keyword", "number", "whitespace", "punctuation", "special", "other")
KEYWORDS = frozenset(keyword.kwlist)


def class_of(text: str, code: bool = False) -> str:
    """The class of a token by its text; `code`: Python's keywords are a class of their own.

    Spaces around a token do not count, and letters beat digits: ` x1` is a word.
    """
    bare = text.strip()
    if not bare:
        return "whitespace" if text else "other"
    if code and bare in KEYWORDS:
        return "keyword"
    if any(letter.isalpha() or letter == "_" for letter in bare):
        return "word" if "�" not in bare else "other"
    if any(letter.isdigit() for letter in bare):
        return "number"
    return "other" if "�" in bare or not bare.isprintable() else "punctuation"


def token_classes(folder: Path, ids: Sequence[int], code: bool) -> NDArray[np.int64]:
    """Index into `CLASSES` of each id.

    Args:
        folder: Of the tokenizer.
        ids: Of that tokenizer.
        code: Whether the text is Python.
    """
    tokenizer = tokenizers.load(folder)
    special = {*tokenizers.special_ids(tokenizer), *tokenizer.all_special_ids}
    texts = tokenizer.batch_decode([[i] for i in ids])
    names = ["special" if i in special else class_of(text, code) for i, text in zip(ids, texts, strict=True)]
    return np.array([CLASSES.index(name) for name in names], dtype=np.int64)
