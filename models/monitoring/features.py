"""Features of inputs, by which a shift shows: of texts, and of images.

Both the reference and the windows are described as the model gets them: cut to its length, in its ids, in its pixels.

Shapes: n examples, t ids of all of them, V vocabulary.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DECODED = 256  # ids of an example that are looked at as letters
LEAST_LETTERS = 3


class Described(NamedTuple):
    """Features of n examples.

    Attributes:
        numbers: Name -> (n,).
        kinds: Name -> a word for each example.
    """

    numbers: dict[str, Floats]
    kinds: dict[str, list[str]]

    def chosen(self, mask: NDArray[np.bool_]) -> Described:
        """The examples that a mask (n,) chooses."""
        kinds = {name: [word for word, kept in zip(words, mask, strict=True) if kept] for name, words in self.kinds.items()}
        return Described({name: values[mask] for name, values in self.numbers.items()}, kinds)


def text_features(
    values: NDArray[np.generic],
    offsets: NDArray[np.int64],
    sizes: NDArray[np.int64],
    log_frequency: Floats,
    decode: Callable[[Sequence[int]], str],
) -> Described:
    """Features of texts.

    `bytes` of the whole text, `ids` of it that the model gets, `rarity`: the mean of their negative log frequency in the training data
    (nats), `other letters`: share of letters beyond ASCII, and `script` of most of its letters.

    Args:
        values: (t,) ids.
        offsets: (n + 1,) where each begins.
        sizes: (n,) bytes of the whole texts.
        log_frequency: (V,) log frequency of each id.
        decode: From ids to text.
    """
    counts = np.diff(offsets)
    rarity, others, scripts = np.zeros(len(counts)), np.zeros(len(counts)), []
    for place, (begin, count) in enumerate(zip(offsets[:-1], counts, strict=True)):
        ids = np.asarray(values[begin : begin + count], dtype=np.int64)
        rarity[place] = -log_frequency[np.minimum(ids, len(log_frequency) - 1)].mean() if count else 0.0
        letters = [letter for letter in decode(ids[:DECODED].tolist()) if letter.isalpha()]
        others[place] = sum(not letter.isascii() for letter in letters) / max(len(letters), 1)
        scripts.append(_script(letters))
    numbers = {"bytes": sizes.astype(np.float64), "ids": counts.astype(np.float64), "rarity": rarity, "other letters": others}
    return Described(numbers, {"script": scripts})


def image_features(pixels: NDArray[np.float32]) -> Described:
    """Features of images (n, C, H, W): `brightness`, the mean of the pixels as the model gets them, and `contrast`, their deviation."""
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)
    return Described({"brightness": flat.mean(axis=1), "contrast": flat.std(axis=1)}, {})


def log_frequencies(values: NDArray[np.generic], vocabulary: int) -> Floats:
    """(V,) log frequency of ids (t,), each counted once more than it occurs."""
    counts = np.bincount(np.asarray(values, dtype=np.int64), minlength=vocabulary) + 1.0
    return np.log(counts / counts.sum())


def _script(letters: list[str]) -> str:
    """The script of most letters, by the first word of their Unicode names; `none` of a text of hardly any."""
    if len(letters) < LEAST_LETTERS:
        return "none"
    names = Counter(unicodedata.name(letter, "UNKNOWN").split(maxsplit=1)[0] for letter in letters)
    return names.most_common(1)[0][0].capitalize()
