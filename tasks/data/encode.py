"""Encode spooled documents into a corpus, in several processes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from conf.atomic import write_atomic
from conf.errors import LadderError
from models.base.files import read_json
from models.data.chat import ChatEncoder
from models.data.corpus import RATIONALES, SPLITS, SplitName
from models.data.corpus_writer import LINES, Rows, SplitWriter
from models.data.encode_worker import EncodeJob, encode_job
from models.data.encoder import Encoded, Encoder
from models.data.lines import sampling_rate
from tasks.data.splits import DROPPED, TRAIN, Parts
from tasks.data.spool import Portion, Spool

ROOT = Path(__file__).parents[2]
ALONE_BYTES = 8 << 20  # so much text is encoded before another process has started
NOTED_BYTES = 32 << 20  # of text, after which progress is noted
FINISHED = "finished.json"

REASONING = len(SPLITS)  # in place of a part: the rationales of the training part

AnyEncoder = Encoder | ChatEncoder


@dataclass
class Finished:
    """Progress of writing a corpus: `finished.json`.

    Attributes:
        portions: Of the spool, that are written; those of a later reading of the spool come on top.
        rows: Split -> rows of each array.
        cut: Split -> texts that did not fit.
        cut_ids: Split -> ids of them that are left out.
    """

    portions: int = 0
    rows: dict[str, Rows] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    cut_ids: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Finished:
        """The note of an earlier process in the folder; empty where there is none."""
        try:
            return cls(**read_json(folder / FINISHED))
        except (OSError, ValueError):
            return cls()

    def count(self, name: str, documents: Encoded) -> None:
        """Count documents and ids that are cut in a split."""
        self.cut[name] = self.cut.get(name, 0) + int(np.count_nonzero(documents.cut))
        self.cut_ids[name] = self.cut_ids.get(name, 0) + int(documents.cut.sum())

    def note(self, folder: Path) -> None:
        """Write it into the folder."""
        write_atomic(folder / FINISHED, json.dumps(asdict(self)))


def lines_of(folder: Path, name: SplitName) -> NDArray[np.uint64]:
    """Hashes of the sampled lines of a split that `encode_spool` has written."""
    return np.load(folder / f"{name}-{LINES}.npy", allow_pickle=False)


@dataclass(frozen=True)
class Numbering:
    """Classes and slices of a corpus by their numbers in the spool.

    Attributes:
        labels: (l + 1,) class of each label, and last of a document without one.
        slices: (s,) index of each slice.
    """

    labels: NDArray[np.int64]
    slices: NDArray[np.int32]


def encode_spool(
    spool: Spool,
    parts: Parts,
    encoder: AnyEncoder | None,
    numbering: Numbering,
    folder: Path,
    processes: int,
    times: NDArray[np.uint8] | None = None,
    rationales: bool = False,
) -> Finished:
    """Write the documents of every part into `folder/<split>`, after those that an earlier process has finished.

    Args:
        spool: The documents.
        parts: (n,) part of each, see `tasks.data.splits.split_documents`.
        encoder: Of texts, or of conversations, in this process alone; None: the contents are images.
        numbering: Of labels and slices.
        folder: Made where it does not exist.
        processes: Most processes that encode. The written files do not depend on it.
        times: (n,) how often each document is written, see `tasks.data.splits.readings`: once each, then those that come again, and so on.
            None: once.
        rationales: Whether those of the training part are written too, into `folder/rationales`, in its order.

    Raises:
        LadderError: A process failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finished = Finished.read(folder)
    dtype, shape = (spool.image_type or "uint8", spool.image_shape or ()) if encoder is None else (encoder.dtype, ())
    names = (*SPLITS, *([RATIONALES] if rationales else []))
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(SplitWriter(folder / name, dtype, shape, finished.rows.get(name), isinstance(encoder, ChatEncoder)))
            for name in names
        }

        def note() -> None:
            finished.rows = {name: writer.flush() for name, writer in writers.items()}
            finished.note(folder)

        unnoted = 0
        every = stack.enter_context(_Encoding(spool, _parts_by_reading(parts, times), encoder, processes, rationales))
        for portion, of, encoded in every.results(finished.portions):
            for part, documents in encoded.items():
                records = portion.records[of == (TRAIN if part == REASONING else part)]
                sizes = records["size"] if encoder else np.zeros(len(records))
                sizes = sizes if documents.sizes is None else documents.sizes
                finished.count(names[part], documents)
                writers[names[part]].append(documents, numbering.labels[records["label"]], numbering.slices[records["slice"]], sizes)
            finished.portions += 1
            unnoted += int(portion.records["size"].sum())
            if unnoted >= NOTED_BYTES:
                note()
                unnoted = 0
        note()
    return finished


def _parts_by_reading(parts: Parts, times: NDArray[np.uint8] | None) -> list[Parts]:
    """The part of each document in each reading of the spool; those that come less often are left out."""
    if times is None:
        return [parts]
    return [np.where(times > reading, parts, DROPPED).astype(np.uint8) for reading in range(int(times.max(initial=1)))]


def training_texts(spool: Spool, parts: Parts) -> Iterator[str]:
    """The texts of the training part, in their order."""
    for portion in spool.portions():
        yield from _job(spool, parts, portion).texts().get(TRAIN, [])


def _job(spool: Spool, parts: Parts, portion: Portion) -> EncodeJob:
    sizes = np.ascontiguousarray(portion.records["size"])
    return EncodeJob(spool.content, portion.start, sizes, parts[portion.first :][: len(sizes)], len(SPLITS), sampling_rate(spool.bytes))


class _Encoding:
    """The results of all portions in their order; at its end no process is left."""

    def __init__(self, spool: Spool, readings: list[Parts], encoder: AnyEncoder | None, processes: int, rationales: bool) -> None:
        self._spool, self._readings, self._encoder, self._rationales = spool, readings, encoder, rationales
        alone = not isinstance(encoder, Encoder) or processes < 2 or spool.bytes < ALONE_BYTES
        self._workers = [] if alone else [_Worker(encoder) for _ in range(processes)]

    def __enter__(self) -> _Encoding:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()

    def results(self, skipped: int) -> Iterator[tuple[Portion, Parts, dict[int, Encoded]]]:
        """Each portion of each reading, but the first `skipped` ones, the part of its documents, and the documents by part."""
        waiting: deque[tuple[Portion, Parts, _Worker]] = deque()
        for number, (portion, parts) in enumerate(self._portions(skipped)):
            of = parts[portion.first : portion.first + len(portion.records)]
            if not self._workers:
                yield portion, of, self._here(portion, parts) if self._encoder else self._images(portion, of)
                continue
            worker = self._workers[number % len(self._workers)]
            done = self._take(waiting) if len(waiting) == len(self._workers) else None
            worker.send(_job(self._spool, parts, portion))
            waiting.append((portion, of, worker))
            if done:
                yield done
        while waiting:
            yield self._take(waiting)

    def _portions(self, skipped: int) -> Iterator[tuple[Portion, Parts]]:
        for parts in self._readings:
            for portion in self._spool.portions():
                if skipped:
                    skipped -= 1
                else:
                    yield portion, parts

    @staticmethod
    def _take(waiting: deque[tuple[Portion, Parts, _Worker]]) -> tuple[Portion, Parts, dict[int, Encoded]]:
        portion, of, worker = waiting.popleft()
        return portion, of, worker.receive()

    def _here(self, portion: Portion, parts: Parts) -> dict[int, Encoded]:
        """The documents by part, encoded in this process, with the rationales of the training part."""
        job, encoder = _job(self._spool, parts, portion), self._encoder
        assert encoder is not None
        encoded = encode_job(encoder, job)
        if self._rationales and isinstance(encoder, ChatEncoder) and TRAIN in encoded:
            encoded[REASONING] = encoder.rationales(job.texts()[TRAIN])
        return encoded

    def _images(self, portion: Portion, of: Parts) -> dict[int, Encoded]:
        shape = self._spool.image_shape or ()
        kind = np.dtype(self._spool.image_type or np.uint8)
        count = int(portion.records["size"].sum()) // kind.itemsize
        pixels = np.fromfile(self._spool.content, kind, count, offset=portion.start).reshape(-1, *shape)
        present = [part for part in range(len(SPLITS)) if (of == part).any()]
        counts = {part: int((of == part).sum()) for part in present}
        return {part: Encoded(pixels[of == part], np.ones(counts[part], np.int64), np.zeros(counts[part], np.int64)) for part in present}


class _Worker:
    """A process that encodes one job at a time; it ends when its input does, so also when this process dies."""

    def __init__(self, encoder: AnyEncoder | None) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        threads = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}  # the processes already are as many as there shall be
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "models.data.encode_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **threads, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for this process
        )
        self._write(encoder)

    def send(self, job: EncodeJob) -> None:
        self._write(job)

    def receive(self) -> dict[int, Encoded]:
        assert self._process.stdout is not None
        try:
            answer: Any = pickle.load(self._process.stdout)  # written by a process of ours
        except (EOFError, pickle.UnpicklingError) as error:
            raise self._ended() from error
        if isinstance(answer, str):
            raise LadderError(f"a process that tokenises failed: {answer.strip().splitlines()[-1]}")
        return cast(dict[int, Encoded], answer)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _write(self, what: object) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(what, self._process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def _ended(self) -> LadderError:
        return LadderError(f"a process that tokenises ended with code {self._process.wait()}; memory may have run out")
