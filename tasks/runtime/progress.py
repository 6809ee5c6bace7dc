"""Progress of long work: a bar on a terminal, lines in a log, data for Prefect."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import UUID

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tasks.records.format import estimate, rate
from tasks.runtime.logs import NOT_ON_TERMINAL, console, log

if TYPE_CHECKING:
    from models.training.loop import Step

LINE_SECONDS = 5.0


@dataclass
class ShownTraining:
    """A training as Prefect shows it; written by the training loop, read by the watcher's thread."""

    key: str
    description: str
    percent: float = 0.0
    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None


BOARD: list[ShownTraining] = []  # trainings of this run, the one under way last


class ShownProgress:
    """A bar on a terminal, and data for Prefect, for which it never waits."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps = name, steps
        self.began = self.last_line = time.monotonic()
        self.shown = _shown(name)
        self.bar: Progress | None = None
        if console.is_terminal:
            columns = ("{task.description}", BarColumn(bar_width=16), "{task.completed}/{task.total}", "{task.fields[figures]}")
            self.bar = Progress(*(c if not isinstance(c, str) else TextColumn(c) for c in columns), TimeRemainingColumn(), console=console)
            self.task = self.bar.add_task(name, total=steps, figures="")

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, done: int, figures: str, words: str) -> None:
        """Show how many steps are done."""
        if self.bar:
            self.bar.update(self.task, completed=done, figures=figures)
        self.shown.description = f"{self.name}: {words}"
        self.shown.percent = 100 * done / self.steps


class TrainingProgress(ShownProgress):
    """Shows step, loss, tokens a second and time left; pass `on_step` to the training."""

    def __init__(self, name: str, steps: int, unit: str) -> None:
        super().__init__(name, steps)
        self.unit = unit
        self.first: int | None = None

    def on_step(self, step: Step) -> None:
        """Show a step."""
        if self.first is None:
            self.first = step.step - 1
        moment, done = time.monotonic(), step.step == self.steps
        figures = f"loss {step.loss:.3f} {rate(step.tokens_per_second)} {self.unit}/s"
        self.show(step.step, figures, f"step {step.step} of {self.steps}, {figures}")
        if done or moment - self.last_line >= LINE_SECONDS:
            self.last_line = moment
            left = (self.steps - step.step) * (moment - self.began) / max(step.step - self.first, 1)
            text = "%s: step %d/%d, %s, %s left"
            log.info(text, self.name, step.step, self.steps, figures, estimate(left), extra=NOT_ON_TERMINAL if self.bar else None)


def _shown(name: str) -> ShownTraining:
    """A new entry of `BOARD`, if a Prefect task is under way: Prefect shows progress nowhere else."""
    from prefect.context import TaskRunContext

    shown, context = ShownTraining(f"progress-{re.sub('[^a-z0-9]', '-', name.lower())}", f"{name}: starting"), TaskRunContext.get()
    if context is not None:
        shown.flow_run_id, shown.task_run_id = context.task_run.flow_run_id, context.task_run.id
        BOARD.append(shown)
    return shown
