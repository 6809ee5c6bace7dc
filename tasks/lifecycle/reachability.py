"""Decide which runs `ladder clean` keeps, and which results they reach."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from conf.errors import LadderError
from conf.home import Home
from conf.locks import is_held, job_began
from tasks.records.proof import read_proof
from tasks.records.routes.search import read_search
from tasks.records.run import RunRecord, StageRecord, stage_record
from tasks.runtime.runs.run_lock import is_alive
from tasks.runtime.runs.run_registry import all_runs
from tasks.store.store import SHOWN
from tasks.tracking.client import OFF, tracking_uri
from tasks.tracking.registry import Registry, read_registry
from tasks.tracking.tracker import Tracker, connect

MODELS = ("teacher", "stage")
OPENING_SECONDS = 600.0  # from the look for named teachers to the record of the run that they teach in
SLACK_SECONDS = 0.1  # a file's time comes from a clock that lags a little behind


@dataclass(frozen=True)
class Retained:
    """The runs that are kept, why, and the results that they use.

    Attributes:
        limit: Seconds since 1970. A result made or used, or a run ended, at this moment or later is kept: it is younger than the age, or
            was touched since the oldest running run began, which may use it.
        reasons: Kept run -> reason.
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
    """Decide which runs of a home are kept.

    Raises:
        LadderError: A run's record cannot be read, so the results that it reaches are unknown.
        RecordUnavailable: MLflow does not answer.
        UserError: MLflow is off, so promoted models are not known.
    """
    began, records = time.time(), all_runs(home)
    _require_readable(home, records)
    tracker = _tracker(home, records, keep_promoted)
    registered = read_registry(tracker, keep_promoted) if tracker else Registry({}, frozenset())
    running = [record for record in records if _is_running(home, record)]
    starts = [*(_moment(record.started) for record in running), *_opening(home, records)]
    limit = min([began - max(age, SLACK_SECONDS), *starts])
    reasons: dict[str, str] = {}
    for record in records:
        aliases = {registered.promoted[m.weights_sha256] for m in record.models if m.weights_sha256 in registered.promoted}
        if record in running:
            reasons[record.run] = "it is running"
        elif ended(home, record) >= limit:
            reasons[record.run] = "it is younger than the age, or than the oldest running run"
        elif aliases and keep_promoted:
            reasons[record.run] = f"promoted: {', '.join(sorted(aliases))}"
    reached, weights = _reach(home, [record for record in records if record.run in reasons])
    doomed = tuple(record for record in records if record.run not in reasons)
    return Retained(limit, reasons, doomed, reached, weights, bool(starts), tracker, registered)


def _tracker(home: Home, records: list[RunRecord], keep_promoted: bool) -> Tracker | None:
    """The record in MLflow, where a run is in it; None where MLflow is off and promoted models need not be kept."""
    if not any(record.mlflow_run_id for record in records) or (tracking_uri(home) == OFF and not keep_promoted):
        return None
    return connect(home)


def ended(home: Home, record: RunRecord) -> float:
    """Time at which a run ended, in seconds since 1970; for a killed run, at which it last wrote its record."""
    return _moment(record.finished) if record.finished else (home.runs / record.run / "record.json").stat().st_mtime


def _reach(home: Home, keepers: list[RunRecord]) -> tuple[dict[str, str], dict[str, str]]:
    stored = _Stored(home)
    reached: dict[str, str] = {}
    weights: dict[str, str] = {}
    for record in keepers:
        if record.data:
            for data in (record.data, *record.data.also.values()):
                reached[data.fingerprint[:SHOWN]] = record.run
        for made in record.generation:  # else the rows would be paid again
            reached |= {one[:SHOWN]: record.run for one in (made.fingerprint, made.answers_fingerprint, *made.judged)}
        rounds = [model for made in record.generation if made.student for model in stored.models(made.student)]
        models = [*record.models, *_proved(stored, record), *_piloted(stored, record), *rounds]
        while models:
            model = models.pop()
            models += model.members
            trials = model.choice.trials if model.choice else ()
            models += [each for trial in trials for each in stored.models(trial.fingerprint)]
            weights.setdefault(model.weights_sha256, record.run)
            for short in (model.fingerprint[:SHOWN], *(teacher[:SHOWN] for teacher in model.teacher_fingerprints)):
                if short not in reached:
                    reached[short] = record.run
                    models += stored.models(short)
    return reached, weights


def _proved(stored: _Stored, record: RunRecord) -> list[StageRecord]:
    """The models of all arms of a proof, or of all trials and of the confirmation of a search."""
    proof, search = read_proof(record), read_search(record)
    fingerprints = {one for arm in proof.arms for each in arm.replicates for one in each.fingerprints} if proof else set()
    if search:
        fingerprints |= {one for trial in search.trials for rung in trial.rungs for one in rung.fingerprints}
        fingerprints |= set(search.confirmation.fingerprints) if search.confirmation else set()
    return [model for one in sorted(fingerprints) for model in stored.models(one)]


def _piloted(stored: _Stored, record: RunRecord) -> list[StageRecord]:
    """The models of all pilots by which a run, or an arm of a proof, has chosen its route."""
    proof = read_proof(record)
    choices = [record.route, *(each.route for arm in (proof.arms if proof else ()) for each in arm.replicates)]
    fingerprints = {one for choice in choices if choice for one in choice.fingerprints}
    return [model for one in sorted(fingerprints) for model in stored.models(one)]


class _Stored:
    """The stored models by the beginning of their fingerprints; their folders are listed once, not for each of them."""

    def __init__(self, home: Home) -> None:
        self.folders: dict[str, list[Path]] = {}
        for folder in (path for kind in MODELS for path in (home.store / kind).glob(f"*-{'?' * SHOWN}")):
            self.folders.setdefault(folder.name[-SHOWN:], []).append(folder)

    def models(self, fingerprint: str) -> list[StageRecord]:
        """Records of the models with this fingerprint."""
        models = []
        for folder in self.folders.get(fingerprint[:SHOWN], ()):
            try:
                models.append(stage_record(folder))
            except (OSError, ValueError):
                continue  # damaged: computed again when it is needed
        return models


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _is_running(home: Home, record: RunRecord) -> bool:
    """Whether a process runs the run, will continue it, or has to report its end to Prefect."""
    claim = home.locks / f"flow-{record.prefect_run_id}.lock"  # see tasks/lifecycle/dead_runs.py
    return is_alive(home, record.run) or is_held(claim)


def _opening(home: Home, records: list[RunRecord]) -> list[float]:
    """Start times of runs without a record yet, which may use results made since."""
    recorded = {f"run-{record.run}.lock" for record in records}
    paths = [path for path in home.locks.glob("run-*.lock") if path.name not in recorded]
    held = [path for path in paths if is_held(path)]
    return [job_began(path) or path.stat().st_mtime - OPENING_SECONDS for path in held]


def _require_readable(home: Home, records: list[RunRecord]) -> None:
    readable = {record.run for record in records}
    for path in home.runs.glob("*/record.json"):
        if path.parent.name not in readable and all(record.run != path.parent.name for record in all_runs(home)):  # nor one just begun
            raise LadderError(
                f"{path} cannot be read, so the results that it needs are unknown; nothing was freed. "
                "Clean with the version of Ladder that wrote it, or remove its folder."
            )
