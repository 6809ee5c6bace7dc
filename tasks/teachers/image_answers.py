"""Match answers to images with the data, by the pixels that models see."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.schema.data import Data, PictureData
from conf.schema.teacher import AnswersTeacher
from models.base.files import file_sha256
from models.data.corpus import SPLITS, Corpus
from models.data.images import ImageReader, named_files
from tasks.teachers.answer_file import KEY

AT_ONCE = 64  # images of the file, or of the corpus


class Keyed(NamedTuple):
    """Keys of rows of the file and of documents of the data, equal where one answers the other.

    Attributes:
        rows: Of each row of the file.
        documents: Of each document of the corpus, its splits one after another.
        shown: What a person finds the first document by whose key is none of those given.
    """

    rows: Iterable[bytes]
    documents: Iterable[bytes]
    shown: Callable[[Container[bytes]], str]


def keyed_images(teacher: AnswersTeacher, file: Path, corpus: Corpus, data: Data) -> Keyed:
    """Keys of images: of their pixels, read, brought to size and scaled as those of the data.

    Args:
        teacher: Names the columns.
        file: The Parquet file.
        corpus: The prepared data.
        data: Their settings, by which images are read.
    """
    from models.architectures.answers import image_key

    pixels, names = corpus.info.pixels, corpus.info.label_names

    def key(values: NDArray[Any]) -> bytes:
        return image_key(values if pixels is None else pixels.of(values))

    def rows() -> Iterator[bytes]:
        images = ImageReader(data, None) if isinstance(data, PictureData) else None
        for origin, value in _column(teacher, file):
            yield key(_digit(value, origin) if images is None else images.read(value, origin, KEY, file.parent)[0])

    def documents() -> Iterator[bytes]:
        for split in map(corpus.split, SPLITS):
            for at in range(0, len(split), AT_ONCE):
                yield from map(key, np.asarray(split.values[at : at + AT_ONCE]))

    def shown(known: Container[bytes]) -> str:
        number = next(number for number, each in enumerate(documents()) if each not in known)
        labels = np.concatenate([corpus.split(name).labels for name in SPLITS])
        label, ends = int(labels[number]), np.cumsum([len(corpus.split(name)) for name in SPLITS])
        part = int(np.searchsorted(ends, number, side="right"))
        place = number + 1 - (int(ends[part - 1]) if part else 0)
        return f"image {place} of {SPLITS[part]}, {f'of the class {names[label]}' if label >= 0 else 'without label'}"

    return Keyed(rows(), documents(), shown)


def hash_named(teacher: AnswersTeacher, file: Path) -> dict[str, str]:
    """The part of an identity that image files have which the answers name; nothing where they hold the images themselves.

    Raises:
        UserError: A file is not there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pq.read_schema(file).field(teacher.image).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return {}
    digest = hashlib.sha256()
    for name, path in named_files(_column(teacher, file), file.parent, KEY):
        digest.update(f"{name}\0{file_sha256(path)}\n".encode())
    return {"images": digest.hexdigest()}


def _digit(levels: Any, origin: str) -> NDArray[np.float32]:
    """A digit (1, 8, 8) as a corpus stores it, of the numbers that scikit-learn gives."""
    try:
        return (np.asarray(levels, dtype=np.float64).reshape(1, 8, 8) / 16).astype(np.float32)
    except (TypeError, ValueError):
        allowed = "64 numbers from 0 to 16, as in load_digits().data of scikit-learn"
        raise UserError.about(KEY, origin, allowed, f"It holds {type(levels).__name__}.") from None


def _column(teacher: AnswersTeacher, file: Path) -> Iterator[tuple[str, Any]]:
    """Places and values of the column of images; a few are in memory."""
    import pyarrow.parquet as pq

    number = 0
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(AT_ONCE, columns=[teacher.image]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield f"{teacher.path}, row {number}", value
