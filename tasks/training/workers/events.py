"""Steps and log lines of the first worker, which its run shows and records."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tasks.runtime.logs import log
from tasks.runtime.progress import TrainingProgress
from tasks.tracking.curves import CurveLogger, points_of

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
    """Reads what was written since the last time, and shows and records it as if the training were here.

    Args:
        folder: Where the first worker writes.
        progress: Shows the steps.
        curves: Records them; None: the model is not recorded.
    """

    def __init__(self, folder: Path, progress: TrainingProgress, curves: CurveLogger | None) -> None:
        self._path, self._progress, self._curves = folder / EVENTS, progress, curves
        self._at, self._recorded = 0, 0

    def record_rest(self) -> None:
        """Record what an earlier attempt wrote, whose run died before it had recorded all; the next attempt writes anew."""
        for event in self._new():
            self._record(event)
        self._at, self._recorded = 0, 0

    def read(self) -> None:
        """Show the new lines; one that is not yet whole waits for the next time."""
        for event in self._new():
            self._record(event)
            self._show(event)

    def _new(self) -> Iterator[dict[str, Any]]:
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._at += len(whole)
        yield from map(json.loads, whole.splitlines())

    def _record(self, event: dict[str, Any]) -> None:
        from models.training.loop import Step

        if self._curves and "step" in event:
            step = Step(**event["step"])
            if step.step > self._recorded:  # workers that were started anew repeat steps
                self._recorded = step.step
                self._curves.add(step.step, points_of(step))

    def _show(self, event: dict[str, Any]) -> None:
        if event.get("begins"):  # the start of the workers is no training
            self._progress.began = time.monotonic()
        elif "step" in event:
            from models.training.loop import Step

            self._progress.on_step(Step(**event["step"]))
        else:
            log.log(event["level"], "%s", event["text"])
