"""Which runs are kept, and what they reach: the judgement of `ladder clean`, which changes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from conf.errors import LadderError
from conf.home import Home
from conf.locks import is_held
from tasks.records.proof import read_proof
from tasks.records.run import RunRecord, StageRecord
from tasks.runtime.run_registry import all_runs, is_alive
from tasks.store.store import SHOWN
from tasks.tracking.registry import Registry, read_registry
from tasks.tracking.tracker import Tracker, connect

MODELS = ("teacher", "stage")
OPENING_SECONDS = 600.0  # from the look for named teachers to the record of the run that they teach in
SLACK_SECONDS = 0.1  # a file's time comes from a clock that lags a little behind


@dataclass(frozen=True)
class Retained:
    """What is kept, and why.

    Attributes:
        limit: Seconds since 1970. What was made, ended or used at this moment or later is kept: it is younger than the age, or was
            touched since the oldest running run began, which may use it.
        reasons: Kept run -> why.
        doomed: All other runs.
        reached: Beginning of a fingerprint -> kept run that reaches it: its data, its models, their teachers, and theirs.
        weights: Hash of the weights of a reached model -> kept run that reaches it.
        running: Whether any run is running.
        tracker: The record in MLflow; none where no run has one.
        registry: MLflow's registered models.
    """

    limit: float
    reasons: dict[str, str]
    doomed: tuple[RunRecord, ...]
    reached: dict[str, str]
    weights: dict[str, str]
    running: bool
    tracker: Tracker | None
    registry: Registry


def retained(home: Home, age: float, keep_promoted: bool) -> Retained:
    """Judge the runs of a home.

    Raises:
        LadderError: A run's record cannot be read: what it reaches is not known.
        RecordUnavailable: MLflow does not answer.
    """
    began, records = time.time(), all_runs(home)
    _require_readable(home, records)
    tracker = connect(home) if any(record.mlflow_run_id for record in records) else None
    known = read_registry(tracker) if tracker else Registry({}, frozenset())
    running = [record for record in records if _is_running(home, record)]
    starts = [*(_moment(record.started) for record in running), *_opening(home, records)]
    limit = min([began - max(age, SLACK_SECONDS), *starts])
    reasons: dict[str, str] = {}
    for record in records:
        aliases = {known.promoted[m.weights_sha256] for m in models_of(record) if m.weights_sha256 in known.promoted}
        if record in running:
            reasons[record.run] = "it is running"
        elif ended(home, record) >= limit:
            reasons[record.run] = "it is younger than the age, or than the oldest running run"
        elif aliases and keep_promoted:
            reasons[record.run] = f"promoted: {', '.join(sorted(aliases))}"
    reached, weights = _reach(home, [record for record in records if record.run in reasons])
    doomed = tuple(record for record in records if record.run not in reasons)
    return Retained(limit, reasons, doomed, reached, weights, bool(starts), tracker, known)


def ended(home: Home, record: RunRecord) -> float:
    """When a run ended; of one that died without a word, when it last wrote its record."""
    return _moment(record.finished) if record.finished else (home.runs / record.run / "record.json").stat().st_mtime


def models_of(record: RunRecord) -> list[StageRecord]:
    """The models of a run, the root teacher first."""
    return [model for model in (record.teacher, *record.stages) if model]


def _reach(home: Home, keepers: list[RunRecord]) -> tuple[dict[str, str], dict[str, str]]:
    reached: dict[str, str] = {}
    weights: dict[str, str] = {}
    for record in keepers:
        if record.data:
            reached[record.data.fingerprint[:SHOWN]] = record.run
        models = [*models_of(record), *_proved(home, record)]
        while models:
            model = models.pop()
            weights.setdefault(model.weights_sha256, record.run)
            for mark in (model.fingerprint[:SHOWN], *(teacher[:SHOWN] for teacher in model.teacher_fingerprints)):
                if mark not in reached:
                    reached[mark] = record.run
                    models += _stored(home, mark)
    return reached, weights


def _proved(home: Home, record: RunRecord) -> list[StageRecord]:
    """The models of all arms of a proof."""
    proof = read_proof(record)
    marks = {mark for arm in proof.arms for each in arm.replicates for mark in each.fingerprints} if proof else set()
    return [model for mark in sorted(marks) for model in _stored(home, mark[:SHOWN])]


def _stored(home: Home, mark: str) -> list[StageRecord]:
    found = []
    for path in (path for kind in MODELS for path in (home.store / kind).glob(f"*-{mark}/record.json")):
        try:
            found.append(StageRecord.model_validate_json(path.read_text()))
        except (OSError, ValidationError):
            continue  # damaged: who asks for it will have it computed again
    return found


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _is_running(home: Home, record: RunRecord) -> bool:
    """Whether a process runs it, is about to continue it, or has ended it and still has to tell how."""
    claim = home.locks / f"flow-{record.prefect_run_id}.lock"  # see tasks/lifecycle/dead_runs.py
    return is_alive(home, record.run) or is_held(claim)


def _opening(home: Home, records: list[RunRecord]) -> list[float]:
    """Since when runs that have no record yet may use what they found."""
    known = {f"run-{record.run}.lock" for record in records}
    paths = [path for path in home.locks.glob("run-*.lock") if path.name not in known]
    held = [path for path in paths if is_held(path)]
    return [path.stat().st_mtime - OPENING_SECONDS for path in held]


def _require_readable(home: Home, records: list[RunRecord]) -> None:
    known = {record.run for record in records}
    for path in home.runs.glob("*/record.json"):
        if path.parent.name not in known and all(record.run != path.parent.name for record in all_runs(home)):  # no run that has just begun
            raise LadderError(
                f"{path} cannot be read, so what it needs is not known; nothing was freed. "
                "Clean with the version of Ladder that wrote it, or remove its folder."
            )
