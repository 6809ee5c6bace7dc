"""Learning curves in MLflow: sent during a training, or read from the store.

`CurveLogger` sends a training's points from a thread of its own, so that no training ever waits for MLflow.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import copy_context
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from conf.errors import RecordUnavailable
from models.base.files import read_json
from tasks.runtime.logs import log
from tasks.tracking.runs import METRICS_PER_CALL, Point, StageRun
from tasks.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    from models.training.loop import Step

FLUSH_SECONDS = 2.0  # between two batches of points
PAUSE_SECONDS, LONGEST_PAUSE = 1.0, 60.0  # between two attempts while MLflow is away: doubled each time
FLUSH_WAIT = 3.0  # most that a checkpoint or the end of a training waits for its points


class CurveLogger(AbstractContextManager["CurveLogger"]):
    """Points of one training, sent to its MLflow run in batches; held back as long as MLflow does not take them."""

    def __init__(self, name: str, tracker: Tracker, open_run: Callable[[], StageRun], system_metrics: bool = False) -> None:
        """Prepare to send; `open_run` opens the MLflow run as soon as MLflow is there. `system_metrics`: of the machine, too."""
        self._system_metrics = system_metrics
        self._machine: SystemMetricsMonitor | None = None
        self._name, self._tracker, self._open_run = name, tracker, open_run
        self._run: StageRun | None = None
        self._held: list[Point] = []
        self._holding, self._sending = threading.Lock(), threading.Lock()
        self._wake, self._ended, self._sent = threading.Event(), threading.Event(), threading.Event()
        self._failures = 0
        self._fatal: Exception | None = None
        # Our log lines reach Prefect's logs of the task only in the task's context.
        self._thread = threading.Thread(target=copy_context().run, args=(self._keep_sending,), name=f"curves of {name}", daemon=True)

    def __enter__(self) -> CurveLogger:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._wake.set()
        self._thread.join(0 if self._failures else FLUSH_WAIT)
        if self._machine is not None:  # in a thread: MLflow may hang
            ending = threading.Thread(target=self._machine.finish, daemon=True)
            ending.start()
            ending.join(0 if self._failures else FLUSH_WAIT)
        if error is None:
            self._raise_fatal()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of a step.

        Raises:
            StoreError: The disk on which MLflow's database lies is full.
        """
        self._raise_fatal()
        now = int(time.time() * 1000)
        with self._holding:
            self._held += [(key, value, step, now) for key, value in values.items()]

    def flush(self) -> None:
        """Have all sent and wait for it, unless MLflow is away: called before a checkpoint, so that a resumed run has every point."""
        until = time.monotonic() + FLUSH_WAIT
        while self._held and not self._failures and not self._fatal:
            self._sent.clear()
            self._wake.set()
            if not self._sent.wait(max(until - time.monotonic(), 0)):
                self._failures = 1  # it hangs: the next checkpoint does not wait
        self._raise_fatal()

    def send(self) -> None:
        """Send the held values; those that MLflow refused stay held.

        Raises:
            RecordUnavailable: MLflow did not take it.
        """
        with self._sending:
            if self._run is None:
                self._run = self._open_run()
                self._watch(self._run.run_id)
            last = self._run.last_steps  # points of an interrupted attempt are skipped, metric by metric
            while batch := self._held[:METRICS_PER_CALL]:
                self._tracker.log_points(self._run.run_id, [point for point in batch if point[2] > last.get(point[0], -1)])
                with self._holding:
                    del self._held[: len(batch)]

    def _watch(self, run_id: str) -> None:
        """Have MLflow's monitor log use of processors, memory, disk, network and GPUs, every ten seconds, from its own thread."""
        if self._system_metrics and not self._ended.is_set():
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._machine = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=self._tracker.address)
            self._machine.start()

    def _keep_sending(self) -> None:
        while True:
            self._wake.clear()
            ending = self._ended.is_set()
            if not (ending and self._failures):
                self._try()
            if ending or self._fatal:
                return
            pause = min(PAUSE_SECONDS * 2**self._failures, LONGEST_PAUSE) if self._failures else FLUSH_SECONDS
            self._wake.wait(pause)

    def _try(self) -> None:
        try:
            if self._failures:
                self._tracker.probe()
            self.send()
        except RecordUnavailable as error:
            self._failures += 1
            if self._failures == 2:  # a connection lost once is nothing to speak of
                log.warning("%s: %s; training goes on, the record catches up", self._name, error)
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to: raised in the training
            self._fatal = error
        else:
            if self._failures > 1:
                log.info("%s: MLflow is back, the record has caught up", self._name)
            self._failures = 0
        self._sent.set()

    def _raise_fatal(self) -> None:
        if self._fatal:
            raise self._fatal


def points_of(step: Step) -> dict[str, float]:
    """A step as points of curves in MLflow."""
    point = {
        "train/loss": step.loss,
        "train/ce": step.ce,
        "train/kd": step.kd,
        "train/learning_rate": step.learning_rate,
        "train/grad_norm": step.grad_norm,
        "train/tokens_per_second": step.tokens_per_second,
    }
    if step.teacher_ce is not None:
        point |= {"train/teacher_ce": step.teacher_ce, "train/alpha": step.alpha, "train/temperature": step.temperature}
    if step.rationale is not None:
        point["train/rationale"] = step.rationale
    return point | valid_points(step.valid or {})


def valid_points(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures of a validation during training, as points of curves in MLflow."""
    return {f"curve/valid_{name}": value for name, value in figures.items()}


def stored_curve(folder: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """The curve that the store keeps of a trained model, as points for MLflow: every step of a short training, a thousand of a long one."""
    from models.training.loop import Step  # imports torch, which a run that only reuses does not need

    file = folder / "curve.json"
    curve = read_json(file) if file.is_file() else {"train": [], "valid": []}  # an imported checkpoint has none
    for point in curve["train"]:
        yield point["step"], points_of(Step(**point, valid=None))
    for point in curve["valid"]:
        yield point["step"], valid_points({name: value for name, value in point.items() if name != "step"})
