"""A tokenizer as a map between ids and bytes, exact in both directions.

Two tokenizers are compared by the bytes that their ids stand for. That takes tokens for bytes, as byte-level BPE has, and byte fallback:
then every text, and every part of one, has ids that give back its bytes. A byte-level BPE may lack some rare bytes, which its texts did not
have; such a byte stays without an id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from models.data import tokenizers
from models.data.encoder import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPACE = "\u2581"  # for a blank in tokens of SentencePiece
STRAY = re.compile("[\udc80-\udcff]+|[^\udc80-\udcff]+")
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
USED = [byte for byte in range(0xF5) if byte not in (0xC0, 0xC1)]  # bytes that occur in UTF-8
COMMON = [9, 10, *range(32, 127)]  # tab, line feed and printable ASCII
MOST_LACKING = len(USED) // 10
GAP = -1  # in the place of a byte without an id


class NoBytes(ValueError):
    """A tokenizer whose ids do not stand for bytes; the reason is a clause about it."""


class ByteTokens:
    """Ids of a tokenizer by their bytes.

    Special ids are no text: they have their string's bytes in `spelt` alone. A text is encoded without normalisation (such as NFC), and
    without the blank that some tokenizers put before its first word, as both would change its bytes.

    Args:
        tokenizer: With `tokenizer.json`, byte-level or with byte fallback.

    Raises:
        NoBytes: It is neither, or lacks tokens of common bytes, or of many.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None) if tokenizer.is_fast else None
        if backend is None:
            raise NoBytes("has no tokenizer.json")
        raw = json.loads(backend.to_str())
        parts = [*_flat(raw["pre_tokenizer"]), *_flat(raw["decoder"])]
        kinds = {part["type"] for part in parts}
        if "ByteLevel" not in kinds and "ByteFallback" not in kinds:
            raise NoBytes(f"is a {raw['model'].get('type', 'tokenizer')} that is neither byte-level nor has byte fallback")
        self.count = tokenizers.id_count(tokenizer)
        self.end = tokenizers.special_ids(tokenizer)[0]
        self.prefix = tuple(tokenizers.frame(tokenizer)[0])
        added: dict[int, Any] = tokenizer.added_tokens_decoder
        specials = {*tokenizer.all_special_ids, *(index for index, token in added.items() if token.special)}
        self.spelt = {index: str(tokenizer.convert_ids_to_tokens(index)) for index in specials}
        letters = tokenizers.byte_letters() if "ByteLevel" in kinds else None
        self.bytes_of: list[bytes] = [b""] * self.count  # of every id; empty: it stands for no text
        self.words = {word: index for word, index in tokenizer.get_vocab().items() if index not in specials}
        for word, index in self.words.items():
            self.bytes_of[index] = word.encode() if index in added else _bytes_of(word, letters)
        self.id_of: dict[bytes, int] = {}  # of several ids of the same bytes the least one that is not for bytes outside its words
        for _, index in sorted(self.words.items(), key=lambda item: (BYTE.fullmatch(item[0]) is not None, item[1])):
            if self.bytes_of[index]:
                self.id_of.setdefault(self.bytes_of[index], index)
        lacking = [byte for byte in USED if bytes([byte]) not in self.id_of]
        if len(lacking) > MOST_LACKING or set(lacking) & set(COMMON):
            raise NoBytes(f"has no token for {len(lacking)} of the bytes of UTF-8, the first is 0x{lacking[0]:02X}")
        self.lacking = frozenset(lacking)
        self._failing: dict[str, bool] = {}
        self._raw, self._plain = raw, tokenizers.encoder_of(tokenizer)

    @cached_property
    def _encoder(self) -> Encoder:
        if self._plain.backend is None:
            return self._plain
        exact = {**self._raw, "normalizer": _exact_normalizer(self._raw["normalizer"]), "post_processor": None}
        exact["pre_tokenizer"] = _without_blank(self._raw["pre_tokenizer"])
        return Encoder(self._plain.dtype, json.dumps(exact), self._plain.forbidden)

    def encode(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Ids of each text, whose bytes are exactly those of the text, with `GAP` for a byte that has none; it may end within a letter."""
        parts = [(number, part) for number, text in enumerate(texts) for part in STRAY.findall(text.decode("utf-8", "surrogateescape"))]
        whole = iter(self._encoder.ids([part for _, part in parts if not _is_stray(part)]))
        found: list[list[int]] = [[] for _ in texts]
        for number, part in parts:
            data = part.encode("utf-8", "surrogateescape")
            found[number] += self._spelt(data) if _is_stray(part) else self._exact(part, data, [int(index) for index in next(whole)])
        return found

    def _exact(self, text: str, data: bytes, ids: list[int]) -> list[int]:
        """The ids, if they give back the text; else those of its parts, cut around letters that fail by themselves, or in its middle."""
        if self._joined(ids) == data:
            return ids
        if len(text) == 1:
            return self._spelt(data)
        odd = "".join(letter for letter in dict.fromkeys(text) if self._fails(letter))
        middle = len(text) // 2
        parts = [part for part in re.split(f"([{re.escape(odd)}])", text) if part] if odd else [text[:middle], text[middle:]]
        again = zip(parts, self._encoder.ids(parts), strict=True)
        return [index for part, some in again for index in self._exact(part, part.encode(), [int(each) for each in some])]

    def _fails(self, letter: str) -> bool:
        """Whether the ids of a letter do not give it back."""
        if letter not in self._failing:
            (ids,) = self._encoder.ids([letter])
            self._failing[letter] = self._joined(ids.tolist()) != letter.encode()
        return self._failing[letter]

    def _joined(self, ids: Sequence[int]) -> bytes:
        return b"".join(self.bytes_of[index] for index in ids)

    def _spelt(self, data: bytes) -> list[int]:
        return [self.id_of.get(bytes([byte]), GAP) for byte in data]


def _is_stray(part: str) -> bool:
    return "\udc80" <= part[0] <= "\udcff"


def _flat(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A component of a tokenizer, a sequence of them as its members."""
    if part is None:
        return []
    members = part.get("pretokenizers") or part.get("decoders") or part.get("normalizers")
    return [inner for member in members for inner in _flat(member)] if members else [part]


def _bytes_of(word: str, letters: dict[str, int] | None) -> bytes:
    if letters is not None:
        return bytes(letters[letter] for letter in word) if all(letter in letters for letter in word) else b""
    byte = BYTE.fullmatch(word)
    return bytes([int(byte[1], 16)]) if byte else word.replace(SPACE, " ").encode()


def _exact_normalizer(normalizer: dict[str, Any] | None) -> dict[str, Any] | None:
    """The part of a normaliser that keeps a text's bytes: the sign for a blank."""
    kept = [part for part in _flat(normalizer) if part["type"] == "Replace" and part.get("content") == SPACE]
    return {"type": "Sequence", "normalizers": kept} if kept else None


def _without_blank(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """A pre-tokenizer that puts no blank before a text."""
    if part is None:
        return None
    if part["type"] == "Sequence":
        return {**part, "pretokenizers": [_without_blank(each) for each in part["pretokenizers"]]}
    if part["type"] == "ByteLevel":
        return {**part, "add_prefix_space": False}
    return {**part, "prepend_scheme": "never"} if part["type"] == "Metaspace" else part
