"""Record a run in MLflow: retry during an outage, and list missing parts.

A record is tried again for a while where MLflow is away; once that was in vain, each further one is tried once only. The run goes on
either way, and its own record names the missing parts.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from conf.durations import seconds_of
from conf.errors import RecordUnavailable, RunCancelled
from conf.home import Home
from tasks.runtime import cancellation
from tasks.runtime.logs import log
from tasks.tracking.client import OFF, RecordRefused, tracking_uri
from tasks.tracking.curves import LONGEST_PAUSE, PAUSE_SECONDS, CurveLogger
from tasks.tracking.null import NullTracker
from tasks.tracking.tracker import Tracker, connect

T = TypeVar("T")

PATIENCE = 90.0  # seconds; LADDER_RECORD_PATIENCE sets another number


class Recorder:
    """Records of one ladder run, and those that MLflow lacks."""

    def __init__(self, open_tracker: Callable[[], Tracker | NullTracker]) -> None:
        """Prepare; `open_tracker` opens the connection when something is to be recorded."""
        self._open_tracker, self.patience = open_tracker, patience()
        self.missing: dict[str, str] = {}  # part -> error
        self._curves: dict[str, CurveLogger] = {}
        self._away = False

    @functools.cached_property
    def tracker(self) -> Tracker | NullTracker:
        """The connection to MLflow, opened when it is first needed."""
        return self._open_tracker()

    @property
    def unrecorded(self) -> tuple[str, ...]:
        """Missing records with their reasons."""
        return tuple(f"{what}: {why}" for what, why in self.missing.items())

    def curves(
        self,
        parent_run_id: str | None,
        name: str,
        fingerprint: str,
        *,
        settings: Mapping[str, Any],
        teacher_run_ids: Sequence[str],
        system_metrics: bool = False,
    ) -> AbstractContextManager[CurveLogger | None]:
        """The curves of a training that begins; kept, so that unsent values are sent with the model's record.

        Args:
            parent_run_id: MLflow run of the ladder run; None: the training is not recorded.
            name: Name of the model.
            fingerprint: Identity of the model.
            settings: Its settings.
            teacher_run_ids: MLflow runs of its teachers, nearest first.
            system_metrics: Whether MLflow records the machine's load, too.
        """
        tracker = self.tracker if parent_run_id else None
        if parent_run_id is None or not isinstance(tracker, Tracker):
            return nullcontext()
        open_run = functools.partial(
            tracker.open_stage, parent_run_id, name, fingerprint, settings=settings, teacher_run_ids=teacher_run_ids
        )
        self._curves[fingerprint] = CurveLogger(name, tracker, open_run, system_metrics)
        return self._curves[fingerprint]

    def send_pending(self, fingerprint: str) -> None:
        """Send the remaining values of trainings of this process.

        Raises:
            RecordUnavailable: MLflow did not take it.
        """
        if fingerprint in self._curves:
            self._curves[fingerprint].send()
            del self._curves[fingerprint]

    def attempt(self, what: str, run_id: str | None, act: Callable[[Tracker, str], T], *, patient: bool = True) -> T | None:
        """Record under an MLflow run, as `attempt_with_tracker`; None: record nothing."""
        return None if run_id is None else self.attempt_with_tracker(what, lambda tracker: act(tracker, run_id), patient=patient)

    def attempt_with_tracker(self, what: str, act: Callable[[Tracker], T], *, patient: bool = True) -> T | None:
        """Record, with retries and growing pauses while MLflow is away; with one try after an earlier failure.

        Args:
            what: Named in the run's record should it be missing in the end.
            act: Records it with the tracker; doing it twice must record it once.
            patient: False: try once.

        Returns:
            The result of `act`; None if MLflow is off or did not take it.

        Raises:
            StoreError: The disk is full.
        """
        tracker = self.tracker
        if isinstance(tracker, NullTracker):
            return None
        until, pause = time.monotonic() + (self.patience if patient and not self._away else 0), PAUSE_SECONDS
        while True:
            try:
                tracker.probe()  # a server that hangs is found out in seconds
                done = act(tracker)
            except RecordUnavailable as error:
                if patient and cancellation.requested():  # MLflow's client takes the cancellation for a lost connection
                    raise RunCancelled("cancelled") from None
                refused = isinstance(error, RecordRefused)
                if refused or time.monotonic() + pause > until:
                    self._away = self._away or not refused
                    self.missing[what] = str(error)
                    log.warning("not recorded: %s: %s", what, error)
                    return None
                if pause == PAUSE_SECONDS:
                    log.warning("%s: %s; trying again for %.0f s", what, error, self.patience)
                time.sleep(pause * random.uniform(0.8, 1.2))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._away = False
                self.missing.pop(what, None)
                return done


def patience() -> float:
    """Seconds of retries of a record between trainings.

    Raises:
        UserError: LADDER_RECORD_PATIENCE is no number of seconds.
    """
    return seconds_of("LADDER_RECORD_PATIENCE", PATIENCE)


@functools.lru_cache(maxsize=1)
def tracker_of(home: Home) -> Tracker | NullTracker:
    """The connection to MLflow, opened once in a process; `NullTracker` where `MLFLOW_TRACKING_URI` is `none`."""
    return NullTracker(f"MLFLOW_TRACKING_URI={OFF}") if tracking_uri(home) == OFF else connect(home)


@functools.lru_cache(maxsize=4)
def recorder_of(home: Home, run: str) -> Recorder:
    """The recorder of a run, one per process."""
    return Recorder(functools.partial(tracker_of, home))
