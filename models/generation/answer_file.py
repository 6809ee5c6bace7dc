"""Log-probabilities that an endpoint gave, in a file: none is paid for twice."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

HEAD = struct.Struct("<32sIII")  # hash of the text, rows n, ids of each K, CRC-32 of what follows
PREFIX = "answers-"
Rows = tuple[Tensor, Tensor]  # ids (n, K) and log-probabilities (n, K) of the first positions of a text


class _Place(NamedTuple):
    file: int  # descriptor
    offset: int
    rows: int
    width: int


class AnswerFile:
    """Answers by the hash of their text, written one by one; any number of threads reads and adds.

    A killed process leaves whole answers, and perhaps half of one, which does not count. Each of several processes writes a file of
    its own and reads those that all have left.

    Args:
        folder: Of the files; it is made where it is not there.
        writer: Number of this process.
    """

    def __init__(self, folder: Path, writer: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._places, self._lock, self._end = dict[bytes, _Place](), threading.Lock(), 0
        own = folder / f"{PREFIX}{writer}.bin"
        own.touch()
        for path in sorted(folder.glob(f"{PREFIX}*.bin")):
            file = os.open(path, os.O_RDWR)
            whole = self._read(file)
            if path == own:
                self._own, self._end = file, whole
                os.ftruncate(file, whole)

    def _read(self, file: int) -> int:
        """Find the answers of a file; returns where the last whole one ends."""
        offset, size = 0, os.fstat(file).st_size
        while offset + HEAD.size <= size:
            key, rows, width, check = HEAD.unpack(os.pread(file, HEAD.size, offset))
            begin, length = offset + HEAD.size, 8 * rows * width
            if begin + length > size or zlib.crc32(os.pread(file, length, begin)) != check:
                break
            self._places[key] = _Place(file, begin, rows, width)
            offset = begin + length
        return offset

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: bytes) -> Rows | None:
        """The answer to a text, None where it was not asked for yet."""
        place = self._places.get(key)
        if place is None:
            return None
        shape, half = (place.rows, place.width), 4 * place.rows * place.width
        content = bytearray(os.pread(place.file, 2 * half, place.offset))
        ids = torch.frombuffer(content, dtype=torch.int32, count=half // 4).reshape(shape)
        return ids.long(), torch.frombuffer(content, dtype=torch.float32, offset=half).reshape(shape)

    def add(self, key: bytes, answer: Rows) -> None:
        """Keep an answer; one that is there already stays."""
        ids, values = (each.numpy().astype(kind) for each, kind in zip(answer, ("<i4", "<f4"), strict=True))
        content = ids.tobytes() + np.ascontiguousarray(values).tobytes()
        rows, width = ids.shape
        with self._lock:
            if key in self._places:
                return
            line = HEAD.pack(key, rows, width, zlib.crc32(content)) + content
            written = 0
            while written < len(line):
                written += os.pwrite(self._own, line[written:], self._end + written)
            self._places[key] = _Place(self._own, self._end + HEAD.size, rows, width)
            self._end += len(line)

    def close(self) -> None:
        """Let go of the files."""
        for file in {place.file for place in self._places.values()} | {self._own}:
            os.close(file)
        self._places.clear()
