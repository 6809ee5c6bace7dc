"""Texts to the ids of a corpus."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 1 << 18  # characters tokenised together: bounds the memory that their encodings take


@dataclass(frozen=True)
class Encoded:
    """Ids of n documents.

    Attributes:
        values: (t,) ids of all documents one after another.
        counts: (n,) int64 ids of each document.
        cut: (n,) int64 ids of each text that its document leaves out, as there is no room for them.
        counted: (t,) uint8, see `models.data.corpus.Split`; None: all count.
        sizes: (n,) int64 bytes of each document's predicted part; None: those of its text.
        lines: (l,) hashes of the sampled lines of all texts, see `models.data.lines`; None: not asked for.
    """

    values: NDArray[Any]
    counts: NDArray[np.int64]
    cut: NDArray[np.int64]
    counted: NDArray[np.uint8] | None = None
    sizes: NDArray[np.int64] | None = None
    lines: NDArray[np.uint64] | None = None


@dataclass(frozen=True)
class Encoder:
    """Turns texts into documents of ids: `before`, the text's own ids, cut to `room`, and `after`.

    Attributes:
        dtype: Of ids, `uint16` or `uint32`.
        backend: The tokenizer: JSON of a `tokenizers.Tokenizer`; any other tokenizer as it is; None: the ids are UTF-8 bytes.
        forbidden: Special ids that no text may turn into, with their strings.
        before: Ids that begin every document.
        after: Ids that end every document.
        room: Most ids of a text; None: all.
        filler: Id of a document that would have none; None: it stays empty.
    """

    dtype: str
    backend: Any = None
    forbidden: dict[int, str] = field(default_factory=dict)
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    room: int | None = None
    filler: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A pickled `Tokenizer` forgets that special strings are plain text: the other process makes its own.
        return {name: value for name, value in self.__dict__.items() if name != "_tokenizer"}

    def documents(self, texts: Sequence[str]) -> Encoded:
        """Encode texts as documents of a corpus."""
        whole = list(self.ids(texts))
        kept = [ids[: self.room] for ids in whole]
        if self.filler is not None:
            kept = [ids if len(ids) else np.array([self.filler], dtype=self.dtype) for ids in kept]
        before, after = len(self.before), len(self.after)
        counts = np.array([before + len(ids) + after for ids in kept], dtype=np.int64)
        cut = np.array([max(len(ids) - (self.room or len(ids)), 0) for ids in whole], dtype=np.int64)
        values = np.empty(int(counts.sum()), dtype=self.dtype)
        at = 0
        for ids in kept:
            values[at : at + before] = self.before
            at += before
            values[at : at + len(ids)] = ids
            at += len(ids)
            values[at : at + after] = self.after
            at += after
        return Encoded(values, counts, cut)

    def ids(self, texts: Sequence[str]) -> Iterator[NDArray[Any]]:
        """The ids of each text without any special id; special strings within it are plain text."""
        if self.backend is None:
            for text in texts:
                yield np.frombuffer(text.encode(), dtype=np.uint8)
            return
        forbidden = np.array(sorted(self.forbidden), dtype=self.dtype)
        for some in _portions(texts):
            for text, ids in zip(some, self._plain_ids(some), strict=True):
                array = np.array(ids, dtype=self.dtype)
                # A unigram model holds the special strings as ordinary pieces, so it finds them even in plain text.
                yield self._spelt_out(text) if np.isin(array, forbidden).any() else array

    def _plain_ids(self, texts: list[str]) -> list[list[int]]:
        if isinstance(self.backend, str):
            return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        return plain_ids(self.backend, texts)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        made = Tokenizer.from_str(self.backend)
        made.no_truncation()
        made.no_padding()
        made.encode_special_tokens = True
        return made

    def _spelt_out(self, text: str) -> NDArray[Any]:
        """Encode a text cut after the first letter of each special string; an id that is special even then is dropped."""
        strings = sorted(self.forbidden.values(), key=len, reverse=True)
        cuts = [0, *(match.start() + 1 for match in re.finditer("|".join(map(re.escape, strings)), text)), len(text)]
        pieces = [text[start:end] for start, end in pairwise(cuts)]
        return np.array([index for ids in self._plain_ids(pieces) for index in ids if index not in self.forbidden], dtype=self.dtype)


def plain_ids(tokenizer: Any, texts: list[str], add_special_tokens: bool = False) -> list[list[int]]:
    """Ids by a transformers tokenizer, whole texts without padding; special strings within them are plain text."""
    encoding = tokenizer(
        texts,
        add_special_tokens=add_special_tokens,
        split_special_tokens=True,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return cast(list[list[int]], encoding["input_ids"])  # its declared type covers tensors, too


def _portions(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in lists of about `AT_ONCE` characters."""
    some: list[str] = []
    size = 0
    for text in texts:
        some.append(text)
        size += len(text)
        if size >= AT_ONCE:
            yield some
            some, size = [], 0
    if some:
        yield some
