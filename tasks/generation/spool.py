"""Answers as JSON lines, as they are written; none of them is asked for again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from models.generation.writers import WrittenAnswer

FILE = "answers.jsonl"


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


class AnswerSpool:
    """A spool that is written; open it as a context manager.

    Attributes:
        answers: Key -> answer, those of earlier attempts among them.
        seconds: Of writing, over all attempts.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._clock = folder / FILE, folder / "seconds"
        self.answers = read_answers(self._path)
        self.seconds = float(self._clock.read_text(encoding="utf-8")) if self._clock.is_file() else 0.0
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> AnswerSpool:
        self._stream = self._path.open("ab")
        whole = self._path.read_bytes().rfind(b"\n") + 1
        self._stream.truncate(whole)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stream is not None
        self._stream.close()

    def add(self, key: str, answer: WrittenAnswer) -> None:
        """Keep an answer; call `sync` before it counts as kept."""
        assert self._stream is not None
        self.answers[key] = answer
        self._stream.write(_line(key, answer))

    def sync(self, seconds: float) -> None:
        """Make all answers durable; `seconds` were spent on them since the last time."""
        assert self._stream is not None
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.seconds += seconds
        self._clock.write_text(repr(self.seconds), encoding="utf-8")
