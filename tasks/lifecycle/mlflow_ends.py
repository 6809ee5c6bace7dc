"""Close ladder runs in MLflow, at their end or later.

A record that has ended lists the end among what MLflow lacks until MLflow's run is closed. So whatever kills the process in between, or
keeps MLflow away, the next run and `ladder serve` find it in the record and close it.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from datetime import datetime

from conf.errors import LadderError, StoreError
from conf.home import Home
from conf.secrets import masked
from tasks.records.run import RunRecord, Status
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import END, ended_run, list_runs, now, save
from tasks.tracking.client import OFF, RecordRefused, tracking_uri
from tasks.tracking.runs import RunStatus
from tasks.tracking.tracker import Tracker, connect

ENDS: dict[Status, RunStatus] = {
    "done": "FINISHED",
    "stopped": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "cancelled": "KILLED",
}
SUMMARY = "summary of the ladder"
DATA = "data set"  # as `RunRecord.unrecorded` names it
_warned: set[str] = set()  # runs whose open end was told in this process


def mlflow_run_of(record: RunRecord, tracker: Tracker) -> str | None:
    """Id of a run in MLflow, even of one killed before it recorded the id; None: MLflow has none."""
    return record.mlflow_run_id or tracker.find_ladder(record.run, record.ladder)


def close_in_mlflow(tracker: Tracker, record: RunRecord) -> None:
    """Close a ladder run in MLflow, with the time of its end, and those of its stages that were not recorded completely."""
    run_id = mlflow_run_of(record, tracker)
    if run_id is None:  # the run ended before MLflow's was opened
        return
    ended = int(datetime.fromisoformat(record.finished or now()).timestamp() * 1000) + 999  # a record counts whole seconds
    log_summary(tracker, run_id, record)
    tracker.close_children(run_id, "KILLED" if ENDS[record.status] == "FINISHED" else ENDS[record.status])
    tracker.close(run_id, ENDS[record.status], min(ended, int(time.time() * 1000)))


def log_summary(tracker: Tracker, run_id: str, record: RunRecord) -> None:
    """Keep the headline of each finished model with the ladder's run, so that ladder runs can be compared in one list."""
    page = f"[Run in Prefect]({record.prefect_url})" if record.prefect_url else ""
    asked = f"By {record.by}." if record.by else ""
    differs = f"Differs by: {'; '.join(f'`{text}`' for text in record.differs)}." if record.differs else ""
    tracker.log_headline(run_id, record.models, [page, record.note or "", asked, differs])


def log_data(tracker: Tracker, run_id: str, record: RunRecord) -> None:
    """Record the corpus of a run."""
    if record.data is not None:
        tracker.log_dataset(run_id, name=record.ladder, corpus=record.data.corpus())


def close_earlier(home: Home, tracker: Tracker | None = None) -> None:
    """Close runs in MLflow that ended without it; costs next to nothing where there are none.

    An unavailable MLflow is no error: the runs wait for the next call.

    Args:
        home: Where the runs are.
        tracker: An open connection to MLflow; None: one is opened if there is something to close.
    """
    address = tracking_uri(home)
    for record in list_runs(home):
        if record.status == "running" or not _is_open(record) or address == OFF or record.mlflow_uri != masked(address):
            continue
        try:
            tracker = tracker or connect(home)
            _close_late(home, tracker, record.run)
        except LadderError as error:
            level = logging.DEBUG if record.run in _warned else logging.WARNING
            log.log(level, "run %s stays open in MLflow until it answers: %s", record.run, error)
            _warned.add(record.run)
            return


def _is_open(record: RunRecord) -> bool:
    return any(text.startswith(f"{END}: ") for text in record.unrecorded)


def _close_late(home: Home, tracker: Tracker, run: str) -> None:
    """Close one run, whose lock is held meanwhile: it may be continued at any moment, and MLflow's run then is open again."""
    with ended_run(home, run) as record:
        if record is None or not _is_open(record):
            return
        run_id, missing = record.mlflow_run_id, [text for text in record.unrecorded if not text.startswith(f"{END}: ")]
        with suppress(RecordRefused):  # a person has deleted it there
            run_id = mlflow_run_of(record, tracker)
            close_in_mlflow(tracker, record)
            if run_id and any(text.startswith(f"{DATA}: ") for text in missing):
                with suppress(StoreError):  # the corpus is gone
                    log_data(tracker, run_id, record)
                    missing = [text for text in missing if not text.startswith(f"{DATA}: ")]
        save(home, record.model_copy(update={"mlflow_run_id": run_id, "unrecorded": tuple(missing)}))
