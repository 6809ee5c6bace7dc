"""The documents of a source in one file, as they were read.

They are split, limited and encoded from there. A folder: `content`, the UTF-8 texts (or the pixels) one after another; `index`, a
`RECORD` for each; `spool.json`, written last, with the labels, slices and class names that the records number. Neither writing nor
reading holds more than a portion in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.atomic import write_atomic
from models.base.files import read_json
from models.data.corpus import SPLITS
from tasks.data.reading.labels import Label, LabelTally
from tasks.data.reading.sources import Source

FORMAT = 2
NONE = 255  # in a record's `split`: the source gives none
TRANSFER = 254  # the same: it trains, and is never held out
RECORD = np.dtype([("place", "<u8"), ("size", "<i8"), ("label", "<i4"), ("slice", "<i4"), ("split", "u1"), ("weight", "<f4")])
PORTION_BYTES = 4 << 20
PORTION_DOCUMENTS = 8192


@dataclass(frozen=True)
class Portion:
    """Documents that stand one after another in the spool.

    Attributes:
        first: Number of the first one.
        start: Byte of `content` at which it begins.
        records: One each, see `RECORD`.
    """

    first: int
    start: int
    records: NDArray[Any]


@dataclass(frozen=True)
class Spool:
    """The spooled documents of a source.

    Attributes:
        folder: Where they lie.
        documents: How many.
        bytes: Of all contents.
        labels: All labels; records number them in the tally's order, -1 for none.
        unlabelled: Given split -> where its first document without label stands.
        slices: Names of the slices, by number.
        class_names: Those of the classes 0, 1, ... where the source declares them.
        image_shape: (C, H, W), for images.
        image_type: Of their values, such as `uint8`.
        dropped: Missing column -> number of rows left out.
        empty: Documents left out because they have no content.
    """

    folder: Path
    documents: int
    bytes: int
    labels: LabelTally
    unlabelled: dict[str, str]
    slices: tuple[str, ...]
    class_names: tuple[str, ...] | None
    image_shape: tuple[int, int, int] | None
    image_type: str | None
    dropped: dict[str, int]
    empty: int

    @property
    def content(self) -> Path:
        """File of the contents."""
        return self.folder / "content"

    def portions(self) -> Iterator[Portion]:
        """All documents, in portions of about `PORTION_BYTES` of content, always cut alike."""
        first, start = 0, 0
        with (self.folder / "index").open("rb") as file:
            while len(block := np.fromfile(file, RECORD, PORTION_DOCUMENTS)):
                ends = np.cumsum(block["size"])
                cuts = np.flatnonzero(np.diff((ends - block["size"]) // PORTION_BYTES)) + 1
                for records in np.split(block, cuts):
                    yield Portion(first, start, records)
                    first, start = first + len(records), start + int(records["size"].sum())

    def column(self, name: str) -> NDArray[Any]:
        """One column of all records."""
        return np.concatenate([portion.records[name] for portion in self.portions()] or [np.empty(0, RECORD[name])])


def open_spool(folder: Path) -> Spool | None:
    """The finished spool in a folder, if there is one of this format."""
    try:
        raw = read_json(folder / "spool.json")
    except (OSError, ValueError):
        return None
    if raw.pop("format", None) != FORMAT:
        return None
    names, shape = raw.pop("class_names"), raw.pop("image_shape")
    return Spool(
        folder=folder,
        labels=_tally(raw.pop("labels")),
        slices=tuple(raw.pop("slices")),
        class_names=None if names is None else tuple(names),
        image_shape=None if shape is None else (shape[0], shape[1], shape[2]),
        **raw,
    )


def write_spool(source: Source, folder: Path, keep_empty: bool) -> Spool:
    """Read a source into a folder, which is made, or begun anew if it is unfinished.

    Args:
        source: The documents.
        folder: Where it goes.
        keep_empty: Whether documents without content count.

    Raises:
        UserError: As the source's readers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tally, numbers, slices, unlabelled = LabelTally(), dict[Label, int](), dict[str, int](), dict[str, str]()
    shape: tuple[int, int, int] | None = None
    kind: str | None = None
    documents = size = empty = 0
    with (folder / "content").open("wb") as contents, (folder / "index").open("wb") as index:
        block = np.empty(PORTION_DOCUMENTS, RECORD)
        for document in source.documents:
            if document.image is not None:
                shape, kind, content = document.image.shape, document.image.dtype.name, document.image.tobytes()
            else:
                content = (document.text or "").encode()
            if not content and not keep_empty:
                empty += 1
                continue
            tally.add(document.label, document.origin)
            number = -1 if document.label is None else numbers.setdefault(document.label, len(numbers))
            if document.label is None and document.split is not None:
                unlabelled.setdefault(document.split, document.origin)
            given = TRANSFER if document.transfer else NONE if document.split is None else SPLITS.index(document.split)
            group = slices.setdefault(document.slice, len(slices))
            block[documents % PORTION_DOCUMENTS] = (place_of(document.key), len(content), number, group, given, document.weight)
            contents.write(content)
            documents, size = documents + 1, size + len(content)
            if documents % PORTION_DOCUMENTS == 0:
                block.tofile(index)
        block[: documents % PORTION_DOCUMENTS].tofile(index)
    made = Spool(folder, documents, size, tally, unlabelled, tuple(slices), source.class_names, shape, kind, dict(source.dropped), empty)
    plain = {field.name: getattr(made, field.name) for field in fields(Spool) if field.name not in ("folder", "labels")}
    write_atomic(folder / "spool.json", json.dumps(plain | {"labels": _plain(tally), "format": FORMAT}))
    return made


def _plain(tally: LabelTally) -> dict[str, Any]:
    rows = [[label, count, tally.origins[label]] for label, count in tally.counts.items()]  # a key of JSON would always be text
    return {"rows": rows, "unlabelled": tally.unlabelled, "first_unlabelled": tally.first_unlabelled}


def _tally(plain: dict[str, Any]) -> LabelTally:
    rows = plain.pop("rows")
    return LabelTally(Counter({label: count for label, count, _ in rows}), {label: origin for label, _, origin in rows}, **plain)


def place_of(key: str) -> int:
    """Place of a document among all possible ones, 64 bits of its key's hash."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
