"""Progress of a training: a bar on a terminal, plain lines in a log, a progress artifact in Prefect."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from types import TracebackType
from uuid import UUID

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from models.training import Step
from tasks.console import console, log

LINE_SECONDS = 5.0
ARTIFACT_SECONDS = 3.0


class TrainingProgress(AbstractContextManager["TrainingProgress"]):
    """Shows step, loss, tokens a second and time left; pass `on_step` to the training."""

    def __init__(self, name: str, steps: int, unit: str) -> None:
        self.name, self.steps, self.unit = name, steps, unit
        self.began = time.monotonic()
        self.first: int | None = None
        self.last_line = self.last_artifact = time.monotonic()
        self.artifact: UUID | None = None
        self.bar: Progress | None = None
        if console.is_terminal:
            columns = ("{task.description}", BarColumn(bar_width=16), "{task.completed}/{task.total}", "{task.fields[figures]}")
            self.bar = Progress(*(c if not isinstance(c, str) else TextColumn(c) for c in columns), TimeRemainingColumn(), console=console)
            self.task = self.bar.add_task(name, total=steps, figures="")

    def __enter__(self) -> TrainingProgress:
        if self.bar:
            self.bar.start()
        self.artifact = _artifact(self.name)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar:
            self.bar.stop()

    def on_step(self, step: Step) -> None:
        """Show a step."""
        if self.first is None:
            self.first = step.step - 1
        moment, done = time.monotonic(), step.step == self.steps
        figures = f"loss {step.loss:.3f} {step.tokens_per_second / 1000:.1f}k {self.unit}/s"
        if self.bar:
            self.bar.update(self.task, completed=step.step, figures=figures)
        if not self.bar and (done or moment - self.last_line >= LINE_SECONDS):
            self.last_line = moment
            left = (self.steps - step.step) * (moment - self.began) / max(step.step - self.first, 1)
            log.info("%s: step %d/%d, %s, %.0f s left", self.name, step.step, self.steps, figures, left)
        if self.artifact and (done or moment - self.last_artifact >= ARTIFACT_SECONDS):
            self.last_artifact = moment
            _update(self.artifact, 100 * step.step / self.steps, f"{self.name}: step {step.step} of {self.steps}, {figures}")


def _artifact(name: str) -> UUID | None:
    from prefect.artifacts import create_progress_artifact
    from prefect.context import TaskRunContext

    if TaskRunContext.get() is None:
        return None
    made = create_progress_artifact(progress=0.0, key=f"progress-{name.lower().replace('_', '-')}", description=f"{name}: starting")
    return made if isinstance(made, UUID) else None


def _update(artifact: UUID, percent: float, description: str) -> None:
    from prefect.artifacts import update_progress_artifact

    update_progress_artifact(artifact, progress=percent, description=description)
