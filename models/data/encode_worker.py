"""Encode pieces of a file of texts, in a process of its own or in this one.

`python -m models.data.encode_worker` reads pickled jobs from its standard input and answers on its standard output until the input
ends, so that no process is left when the one that started it dies. Imports no torch and no transformers.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.data.encoder import Encoded
from models.data.lines import line_hashes


class TextEncoder(Protocol):
    """Makes documents of texts."""

    def documents(self, texts: Sequence[str]) -> Encoded:
        """Encode texts as documents of a corpus."""
        ...


@dataclass(frozen=True)
class EncodeJob:
    """Documents that stand one after another in a file of UTF-8 texts.

    Attributes:
        path: The file.
        start: Byte at which the first of them begins.
        sizes: (n,) bytes of each.
        parts: (n,) part of the corpus that each belongs to; the first number that is none is `end`.
        end: See `parts`.
        line_rate: Share of the texts' lines that are sampled.
    """

    path: Path
    start: int
    sizes: NDArray[np.int64]
    parts: NDArray[np.uint8]
    end: int
    line_rate: float

    def texts(self) -> dict[int, list[str]]:
        """The texts of each part, in their order."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            content = file.read(int(self.sizes.sum()))
        bounds = [0, *np.cumsum(self.sizes).tolist()]
        texts: dict[int, list[str]] = {}
        for (begin, end), part in zip(pairwise(bounds), self.parts.tolist(), strict=True):
            if part < self.end:
                texts.setdefault(part, []).append(content[begin:end].decode())
        return texts


def encode_job(encoder: TextEncoder, job: EncodeJob) -> dict[int, Encoded]:
    """The documents of each part that has any."""
    return {part: replace(encoder.documents(texts), lines=line_hashes(texts, job.line_rate)) for part, texts in job.texts().items()}


def main() -> None:
    """Answer jobs until the input ends: the first object is the encoder, an answer is a result or the text of an error."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever a library prints is no answer
    try:
        encoder = pickle.load(source)
        while True:
            job = pickle.load(source)
            try:
                answer: dict[int, Encoded] | str = encode_job(encoder, job)
            except Exception:  # noqa: BLE001 - the worker must outlive a failed job; its text is sent to the asking process, which raises it
                answer = traceback.format_exc()
            pickle.dump(answer, sink, protocol=pickle.HIGHEST_PROTOCOL)
            sink.flush()
    except (EOFError, BrokenPipeError):
        return


if __name__ == "__main__":
    main()
