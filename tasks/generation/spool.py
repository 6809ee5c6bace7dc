"""Answers as JSON lines, as they are written; none of them is asked for again.

Processes that share the writing leave whole parts beside the spool, and the run takes them in.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO

from filelock import FileLock

from models.generation.writers import WrittenAnswer

FILE = "answers.jsonl"
PARTS = "parts"  # folder of a spool, with a file for each part that another process has written


def read_answers(path: Path) -> dict[str, WrittenAnswer]:
    """Key -> answer; a line that a killed process left unfinished is no answer."""
    return dict(_lines(path)) if path.is_file() else {}


def _lines(path: Path) -> Iterator[tuple[str, WrittenAnswer]]:
    with path.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                plain = json.loads(line)
                yield plain.pop("key"), WrittenAnswer(**plain)


def write_answers(path: Path, answers: Sequence[tuple[str, WrittenAnswer]]) -> None:
    """Write a whole file of answers."""
    with path.open("wb") as stream:
        for key, answer in answers:
            stream.write(_line(key, answer))


def _line(key: str, answer: WrittenAnswer) -> bytes:
    return (json.dumps({"key": key, **asdict(answer)}) + "\n").encode()


@contextmanager
def part_writer(folder: Path, process: int) -> Iterator[None]:
    """Let a process write parts for the spool in a folder until the end of the block: whoever opens the spool then waits for it."""
    (folder / PARTS).mkdir(exist_ok=True)
    with FileLock(folder / PARTS / f"{process}.lock"):
        yield


def write_part(folder: Path, number: int, answers: Sequence[tuple[str, WrittenAnswer]]) -> None:
    """Write a part for the spool in a folder, whole or not at all."""
    path = folder / PARTS / f"{number}.jsonl"
    write_answers(path.with_suffix(".writing"), answers)
    path.with_suffix(".writing").rename(path)


class AnswerSpool:
    """A spool that is written; open it as a context manager.

    Attributes:
        folder: Of the spool.
        answers: Key -> answer, those of earlier attempts among them.
        seconds: Of writing, over all attempts.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._path, self._clock, self._parts = folder, folder / FILE, folder / "seconds", folder / PARTS
        self.answers = read_answers(self._path)
        self.seconds = float(self._clock.read_text(encoding="utf-8")) if self._clock.is_file() else 0.0
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> AnswerSpool:
        self._stream = self._path.open("ab")
        whole = self._path.read_bytes().rfind(b"\n") + 1
        self._stream.truncate(whole)
        for path in self._parts.glob("*.lock"):
            with FileLock(path):  # a process of a killed run ends within a second
                pass
        self.take_parts(0.0)
        shutil.rmtree(self._parts, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stream is not None
        self._stream.close()

    def add(self, key: str, answer: WrittenAnswer) -> None:
        """Keep an answer; call `sync` before it counts as kept."""
        assert self._stream is not None
        self.answers[key] = answer
        self._stream.write(_line(key, answer))

    @property
    def parts(self) -> list[Path]:
        """Files of the parts that other processes have finished."""
        return sorted(self._parts.glob("*.jsonl"))

    def take_parts(self, seconds: float) -> list[WrittenAnswer]:
        """Take in the parts that other processes have finished; returns their answers, for which `seconds` were spent."""
        paths, new = self.parts, list[WrittenAnswer]()
        for path in paths:
            for key, answer in read_answers(path).items():
                if key not in self.answers:
                    self.add(key, answer)
                    new.append(answer)
        if paths:
            self.sync(seconds)
        for path in paths:
            path.unlink()
        return new

    def sync(self, seconds: float) -> None:
        """Make all answers durable; `seconds` were spent on them since the last time."""
        assert self._stream is not None
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.seconds += seconds
        self._clock.write_text(repr(self.seconds), encoding="utf-8")
