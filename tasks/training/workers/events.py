"""Steps and log lines of the first worker, passed to its run in a file."""

from __future__ import annotations

import json
import logging
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tasks.runtime.logs import log
from tasks.runtime.progress import TrainingProgress

if TYPE_CHECKING:
    from models.training.loop import Step

EVENTS = "events.jsonl"


class EventWriter(AbstractContextManager["EventWriter"]):
    """Writes the steps and log lines of this process; in place of a bar and a terminal, which are the run's."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / EVENTS).open("a", encoding="utf-8", buffering=1)
        self._handler = _Lines(self)

    def __enter__(self) -> EventWriter:
        log.addHandler(self._handler)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        log.removeHandler(self._handler)
        self._file.close()

    def on_step(self, step: Step) -> None:
        """Pass a step."""
        self.write(step=step._asdict())

    def write(self, **event: Any) -> None:
        """Write one line."""
        self._file.write(json.dumps(event) + "\n")


class _Lines(logging.Handler):
    def __init__(self, writer: EventWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        self._writer.write(level=record.levelno, text=record.getMessage())


class EventReader:
    """Reads what was written since the last time, and shows it as if the training were here."""

    def __init__(self, folder: Path, progress: TrainingProgress) -> None:
        self._path, self._progress, self._at = folder / EVENTS, progress, 0

    def read(self) -> None:
        """Show the new lines; one that is not yet whole waits for the next time."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            self._show(json.loads(line))

    def _show(self, event: dict[str, Any]) -> None:
        if event.get("begins"):  # the start of the workers is no training
            self._progress.began = time.monotonic()
        elif "step" in event:
            from models.training.loop import Step

            self._progress.on_step(Step(**event["step"]))
        else:
            log.log(event["level"], "%s", event["text"])
