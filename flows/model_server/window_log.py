"""Write a sample of requests as monitoring windows, without delaying them.

Rows go to `windows/<model>/<hour>.jsonl.part`, which is renamed to `.jsonl` when the hour is over or the server ends. A lock of the kernel
on the open file tells which parts a dead server left behind.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import os
import queue
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from conf.errors import UserError, reason_of
from flows.model_server.metrics import Metrics
from tasks.records.window import WindowRow
from tasks.runtime.logs import log

Redact = Callable[[dict[str, Any]], dict[str, Any] | None]
MOST_WAITING = 10_000  # rows; more are dropped and counted
PART = ".part"
IMAGES = "images"  # folder of logged images, beside the windows


def moment() -> str:
    """The present time as window rows hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def redaction(text: str | None) -> Redact | None:
    """The function that `package:function` names.

    Raises:
        UserError: It cannot be imported, or is no function.
    """
    if text is None:
        return None
    module, _, name = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module is a program, and raises what it likes
        raise UserError.about("--redact", text, "package:function that Python can import", f"Python says: {reason_of(error)}.") from error
    if not callable(found):
        raise UserError.about("--redact", text, "a function that takes and returns a row", "Name a function.")
    return cast(Redact, found)


class WindowLog:
    """A sample of rows, written by a thread of its own.

    Args:
        folder: `windows/<model>`.
        share: Of the requests, 0 to 1; 0: nothing is written, nor is the folder made.
        redact: Gets each row as a mapping and returns it changed, or None to leave it out. If it fails, the row is left out.
        metrics: Told what became of the rows: `written`, `redacted`, `redaction_failed`, `queue_full`, `write_failed`.
    """

    def __init__(self, folder: Path, share: float, redact: Redact | None, metrics: Metrics) -> None:
        self._folder, self._share, self._redact, self._metrics = folder, share, redact, metrics
        self._queue: queue.Queue[tuple[WindowRow, bytes | None] | None] = queue.Queue(MOST_WAITING)
        self._random = random.Random()
        self._file: _WindowFile | None = None
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="windows", daemon=True)
        if share > 0:
            self._thread.start()

    def chosen(self) -> bool:
        """Whether the next request is of the sample."""
        return self._share > 0 and self._random.random() < self._share

    def add(self, row: WindowRow, image: bytes | None = None) -> None:
        """Queue a row; the file of an image is written beside it, and its place becomes the input."""
        try:
            self._queue.put_nowait((row, image))
        except queue.Full:
            self._count("queue_full")

    def close(self) -> None:
        """Write what waits, and close the window."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _count(self, outcome: str) -> None:
        self._metrics.window_rows.labels(outcome).inc()

    def _run(self) -> None:
        with suppress(OSError):
            finish_left_behind(self._folder)
        while (item := self._next()) is not None:
            self._take(*item)
        if self._file is not None:
            self._file.finish()

    def _next(self) -> tuple[WindowRow, bytes | None] | None:
        """The next row; meanwhile, the window is finished when its hour is over, also where no further row comes."""
        while True:
            try:
                return self._queue.get(timeout=1.0)
            except queue.Empty:
                if self._file is not None and self._file.hour != _hour(moment()):
                    self._file.finish()
                    self._file = None

    def _take(self, row: WindowRow, image: bytes | None) -> None:
        document = row.model_dump(mode="json", exclude_defaults=True)
        if image is not None:
            document["input"] = f"{IMAGES}/{hashlib.sha256(image).hexdigest()}"
        if self._redact is not None:
            try:
                changed = self._redact(document)
                document = None if changed is None else WindowRow.model_validate(changed).model_dump(mode="json", exclude_defaults=True)
            except Exception as error:  # noqa: BLE001  a hook raises anything; an unredacted row must not be written
                self._warn(f"the redaction hook fails; its rows are left out: {reason_of(error)}")
                self._count("redaction_failed")
                return
        if document is None:
            self._count("redacted")
            return
        try:
            self._write(row.time, document, image)
        except OSError as error:
            self._warn(f"rows for monitoring cannot be written to {self._folder}: {reason_of(error)}")
            self._count("write_failed")
        else:
            self._count("written")

    def _write(self, time: str, document: dict[str, Any], image: bytes | None) -> None:
        if self._file is None or self._file.hour != _hour(time):
            if self._file is not None:
                self._file.finish()
                self._file = None
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = _WindowFile(self._folder, _hour(time))
        if image is not None and str(document.get("input", "")).startswith(f"{IMAGES}/"):
            place = self._folder / str(document["input"])
            place.parent.mkdir(exist_ok=True)
            if not place.exists():
                place.write_bytes(image)
        self._file.append((json.dumps(document, ensure_ascii=False) + "\n").encode())

    def _warn(self, text: str) -> None:
        """Once; the metrics count every row."""
        if not self._warned:
            log.warning("%s", text)
        self._warned = True


class _WindowFile:
    """The window of one hour that is written.

    Args:
        folder: Where.
        hour: As in the name.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, folder: Path, hour: str) -> None:
        self.hour, self._size, number = hour, 0, 1
        while True:
            self._whole = folder / (f"{hour}.jsonl" if number == 1 else f"{hour}-{number}.jsonl")
            self._part = self._whole.with_name(self._whole.name + PART)
            number += 1
            if self._whole.exists():
                continue
            with suppress(FileExistsError):
                self._handle = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                break
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def append(self, line: bytes) -> None:
        """Add a line whole or not at all.

        Raises:
            OSError: The disk does not take it.
        """
        try:
            left = line
            while left:
                left = left[os.write(self._handle, left) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._handle, self._size)
                os.lseek(self._handle, self._size, os.SEEK_SET)
            raise
        self._size += len(line)

    def finish(self) -> None:
        """Give the window its final name; an empty one is removed."""
        with suppress(OSError):
            os.fsync(self._handle)
            self._part.rename(self._whole) if self._size else self._part.unlink()
        os.close(self._handle)


def finish_left_behind(folder: Path) -> None:
    """Give the parts of dead servers their final names, without a half-written last line.

    Raises:
        OSError: One cannot be renamed.
    """
    for part in folder.glob(f"*{PART}"):
        with part.open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another server writes it
                continue
            content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            file.truncate(len(whole))
            part.rename(part.with_suffix("")) if whole else part.unlink()


def _hour(time: str) -> str:
    return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y%m%dT%H")
