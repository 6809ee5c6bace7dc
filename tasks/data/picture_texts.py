"""Documents of a picture with a text: a prompt and an answer, or a caption."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.schema.data import PictureData
from conf.schema.ladder import Ladder
from models.base.interface import Picture
from models.data.chat import use_template
from models.data.corpus import PICTURE, PIXELS, SPLITS, Pixels
from models.data.corpus_writer import GrowingArray
from models.multimodal import processors
from models.multimodal.encoder import PictureEncoder, RowTooLong
from models.multimodal.pictures import PictureReader
from tasks.data.reading.conversations import template_of
from tasks.data.reading.readers import Document
from tasks.data.reading.sources import Source
from tasks.data.splits import Parts

ROOM = "room for all their ids"  # what a row lacks that is longer than a sequence
COPIED_AT_ONCE = 256  # pictures


class PictureTexts:
    """Reads, encodes and writes the pictures of documents, whose texts go the way of all texts.

    Args:
        ladder: Its data, tokenizer and sequence length count.
        base: Folder that relative paths count from.
        teacher: Folder of the processor.
        work: Folder for the pictures of all documents, until each is in its split.

    Raises:
        UserError: There is no such processor.
    """

    def __init__(self, ladder: Ladder, base: Path, teacher: Path, work: Path) -> None:
        assert isinstance(ladder.data, PictureData), "the schema asks for it"
        self.data, self.length, self._file = ladder.data, ladder.data.sequence_length, work / "pictures.npy"
        self.writes = ladder.workload == "image-text"
        self.processor = processors.load(teacher, self.writes)
        self.tokenizer = self.processor.tokenizer
        self.reader = PictureReader(ladder.data, self.processor, self.writes)
        if not self.writes:
            return
        template = template_of(ladder, base, teacher) or self.processor.chat_template
        self.plain = use_template(self.tokenizer, template, messages=False)
        self.processor.chat_template = self.tokenizer.chat_template

    @cached_property
    def encoder(self) -> PictureEncoder:
        """The encoder of prompts and answers; to be had once a picture was read."""
        assert self.reader.placeholder is not None
        return PictureEncoder(self.tokenizer, self.length + 1, self.plain, self.reader.placeholder)

    def put_aside(self, source: Source) -> Source:
        """The documents without their pictures, which are kept in their order while the documents are read."""
        return replace(source, documents=self._aside(source))

    def _aside(self, source: Source) -> Iterator[Document]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            pictures: GrowingArray | None = None
            for document in source.documents:
                assert document.image is not None
                if self.writes and self._is_too_long(document):
                    source.dropped[ROOM] += 1
                    continue
                if pictures is None:
                    pictures = GrowingArray(self._file, document.image.dtype, document.image.shape)
                    stack.callback(pictures.close)
                pictures.append(document.image[None])
                yield replace(document, image=None)

    def _is_too_long(self, document: Document) -> bool:
        assert document.text is not None
        try:
            self.encoder.conversations([document.text])
        except RowTooLong as error:
            if self.data.missing == "drop":
                return True
            raise UserError(f"{document.origin}: {error}") from error
        except UserError as error:
            raise UserError(f"{document.origin}: {error}") from error
        return False

    def write(self, folder: Path, parts: Parts, times: NDArray[np.uint8] | None) -> None:
        """Write the pictures of each split beside its other arrays, in the order of `encode_spool`.

        Args:
            folder: Of the splits.
            parts: (n,) part of each document.
            times: (n,) how often each is written; None: once.
        """
        stored = np.load(self._file, mmap_mode="r", allow_pickle=False)
        readings = [np.ones(len(parts), dtype=bool)] if times is None else [times > number for number in range(int(times.max(initial=1)))]
        for index, name in enumerate(SPLITS):
            numbers = np.concatenate([np.flatnonzero((parts == index) & read) for read in readings])
            array = GrowingArray(folder / name / f"{PICTURE}{PIXELS}.npy", stored.dtype, stored.shape[1:])
            for first in range(0, len(numbers), COPIED_AT_ONCE):
                array.append(stored[numbers[first : first + COPIED_AT_ONCE]])
            array.close()
            for other, values in self.reader.inputs.items():
                np.save(folder / name / f"{PICTURE}{other}.npy", values, allow_pickle=False)
        self._file.unlink()

    @property
    def picture(self) -> Picture:
        """Description of the corpus's pictures."""
        known = self.reader.placeholder
        return Picture(-1, 0, self.shape) if known is None else Picture(known.id, known.count, self.shape, known.marks)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of the `pixel_values` of a picture."""
        return tuple(np.load(self._file, mmap_mode="r", allow_pickle=False).shape[1:])

    @property
    def pixels(self) -> Pixels | None:
        """Scaling from the stored pixels; None: none."""
        return self.reader.pixels
