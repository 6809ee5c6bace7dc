"""A ladder run from its opening to its end, whatever the end is: its record is always true, and always on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from uuid import UUID

from prefect.runtime import flow_run

from conf.errors import LadderError, UserError
from conf.home import Home, home
from conf.loading.load import suggest, to_yaml
from conf.schema.ladder import Ladder
from tasks.lifecycle.dead_runs import attempt_of, cancel_children, claim
from tasks.records.run import DataRecord, RunRecord, StageRecord, Status
from tasks.runtime import cancellation as stopping
from tasks.runtime.environment import environment
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import api_address, require_server, root_cause
from tasks.runtime.prefect_watcher import PrefectWatcher
from tasks.runtime.run_registry import Context, RunLock, all_runs, new_name, now, save, unfinished
from tasks.tracking.client import RecordRefused
from tasks.tracking.flavour import metrics_of
from tasks.tracking.recorder import Recorder, recorder_of
from tasks.tracking.runs import RunStatus
from tasks.tracking.tracker import Tracker
from tasks.training.identity import settings_hash

ENDS: dict[Status, RunStatus] = {
    "done": "FINISHED",
    "stopped": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "cancelled": "KILLED",
}
END = "end of the run"


class LadderRun(AbstractContextManager["LadderRun"]):
    """One run: opened by `open`, fed by `keep`, ended by `finish` or by an exception."""

    def __init__(self, record: RunRecord, context: Context, lock: RunLock) -> None:
        self.record, self.context, self.lock = record, context, lock
        self.watch = PrefectWatcher(UUID(record.prefect_run_id)) if record.prefect_run_id else None
        self.began = time.monotonic()

    @classmethod
    def open(
        cls,
        source: str,
        ladder: Ladder,
        base: Path,
        overrides: Sequence[str],
        start_at: str | None,
        fresh: bool,
        prefect_run_id: str | None,
        repeats: str | None = None,
        served: bool = False,
        whole: bool = False,
        named: Sequence[str] | None = None,
        budget: str | None = None,
        proof: bool = False,
    ) -> LadderRun:
        """Begin a run, or go on with the last one of the same command if it died or was interrupted.

        Args:
            source: The ladder's name or path, as given.
            ladder: Its settings.
            base: Folder that relative paths count from.
            overrides: What was changed of it.
            start_at: First stage that may be computed.
            fresh: Whether to compute anew what is finished.
            prefect_run_id: Flow run that this is.
            repeats: Name of the run that this one repeats.
            served: Whether it was started through a deployment.
            whole: Whether the ladder was given in full, overrides applied.
            named: Fingerprints of the teachers that were named for the one stage of `ladder`, the nearest first; None: a whole ladder.
            budget: How the ladder was shortened, in words.
            proof: Whether it is compared with its control arms.

        Raises:
            UserError: `start_at` names no stage, or MLflow's address answers nothing.
        """
        paths, kept = home(), kept_before(ladder, start_at)
        mark = settings_hash(ladder, proof)
        earlier = unfinished(paths, mark, start_at, fresh)
        name = earlier.run if earlier else new_name(ladder.name)
        lock = RunLock(paths, name)
        if prefect_run_id:
            claim(paths, prefect_run_id)
        if not lock.take():
            earlier, name = None, new_name(ladder.name)
            lock = RunLock(paths, name)
            lock.take()
        if earlier:
            log.info("continuing the interrupted run %s", name)
        tracker, known = recorder_of(paths, name).tracker, environment()
        close_earlier(paths, tracker)
        yaml_text = to_yaml(ladder)
        mlflow_run_id = tracker.open_ladder(
            name,
            ladder.name,
            mark,
            yaml_text,
            params={"ladder": source, "overrides": list(overrides), "start_at": start_at, "fresh": fresh, "seed": ladder.seed},
            environment=known,
            tags=_links(prefect_run_id),
            continue_id=earlier.mlflow_run_id if earlier else None,
        )
        record = RunRecord(
            run=name,
            ladder=ladder.name,
            workload=ladder.workload,
            status="running",
            settings_hash=mark,
            source=source,
            overrides=tuple(overrides),
            start_at=start_at,
            fresh=fresh,
            started=earlier.started if earlier else now(),
            pid=os.getpid(),
            folder=str(paths.runs / name),
            planned=tuple(stage.name for stage in ladder.stages),
            mlflow_uri=tracker.uri,
            mlflow_experiment_id=tracker.experiment(ladder.name),
            mlflow_run_id=mlflow_run_id,
            prefect_run_id=prefect_run_id,
            prefect_url=_prefect_url(prefect_run_id),
            prefect_api=api_address() if prefect_run_id else None,
            attempt=attempt_of(flow_run.tags or []),
            restarts=ladder.compute.restarts,
            repeats=repeats if earlier is None else earlier.repeats,
            served=served,
            whole=whole,
            only=None if named is None else ladder.stages[0].name,
            named=tuple(named or ()),
            budget=budget,
            proof=proof,
            environment=known,
        )
        context = Context(
            run=name,
            ladder=ladder.name,
            home=str(paths.root),
            base=str(base),
            fresh=fresh,
            start_at=start_at,
            kept=kept,
            mlflow_run_id=mlflow_run_id,
        )
        run = cls(record, context, lock)
        run.save(record)
        (Path(record.folder) / "ladder.yaml").write_text(yaml_text)
        log.info("run %s", name)
        if run.watch:
            run.watch.__enter__()
        return run

    @property
    def recorder(self) -> Recorder:
        """What keeps this run's record in MLflow."""
        return recorder_of(self.context.paths, self.context.run)

    def save(self, record: RunRecord) -> None:
        """Make `record` the truth, in memory and on disk."""
        self.record = record
        save(self.context.paths, record)

    def keep_data(self, data: DataRecord) -> DataRecord:
        """Note the corpus, here and in MLflow."""
        assert self.context.mlflow_run_id
        corpus, log_dataset = data.corpus(), self.recorder.tracker.log_dataset
        self.recorder.attempt("data set", partial(log_dataset, self.context.mlflow_run_id, self.record.ladder, corpus))
        self.save(self.record.model_copy(update={"data": data}))
        return data

    def keep(self, model: StageRecord) -> StageRecord:
        """Note a finished model: the teacher first, then the stages in order."""
        update = {"teacher": model} if self.record.teacher is None else {"stages": (*self.record.stages, model)}
        self.save(self.record.model_copy(update=update))
        if self.watch:
            require_server()
        return model

    def plan(self, stages: tuple[str, ...]) -> None:
        """Note the names of the stages that are to be made, where they are not the ladder's."""
        self.save(self.record.model_copy(update={"planned": stages}))

    def plan_before(self, stage: str, assistant: str) -> None:
        """Note a stage that a gate inserts before another one."""
        planned = [name for name in self.record.planned if name != assistant]
        planned.insert(planned.index(stage), assistant)
        self.save(self.record.model_copy(update={"planned": tuple(planned)}))

    def finish(self) -> RunRecord:
        """The record of a run that came to its end: done, or stopped by the last stage's gate."""
        last = self.record.stages[-1] if self.record.stages else None
        stopped = last is not None and last.gate == "stopped"
        reasons = "; ".join(last.gate_reasons) if last and stopped else None
        return self._ended("stopped" if stopped else "done", f"the gate stopped the ladder: {reasons}" if reasons else None)

    def _ended(self, status: Status, error: str | None) -> RunRecord:
        return self.record.model_copy(
            update={"status": status, "error": error, "waiting": None, "finished": now(), "seconds": time.monotonic() - self.began}
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        said = root_cause(error) if error else None
        reason = stopping.end(said)
        if self.watch:
            self.watch.__exit__(kind, error, trace)
        if said is not None:
            text = str(said) if isinstance(said, LadderError) else reason or f"{type(said).__name__}: {said}"
            self._close(self._ended(reason or "failed", text))
        else:
            self._close(self.record)
        if reason == "cancelled" and self.watch:
            cancel_children(self.watch.flow_run_id)
        self.lock.release()

    def _close(self, record: RunRecord) -> None:
        """Record the end; what cannot be written must not hide the error that ended the run."""
        for act in (lambda: self.save(record), self._close_mlflow, self._say_what_is_missing):
            try:
                act()
            except LadderError as error:
                log.warning("%s", error)

    def _close_mlflow(self) -> None:
        close = partial(close_in_mlflow, self.recorder.tracker, self.record)
        self.recorder.attempt(END, close, patient=self.record.status in ("done", "stopped"))

    def _say_what_is_missing(self) -> None:
        missing = self.recorder.missing
        if missing:
            text = "MLflow lacks: %s (%s). All of it is in the store; the same command records it once MLflow is back."
            log.warning(text, ", ".join(missing), "; ".join(dict.fromkeys(missing.values())))
            self.save(self.record.model_copy(update={"unrecorded": self.recorder.unrecorded}))


def close_in_mlflow(tracker: Tracker, record: RunRecord) -> None:
    """Close a ladder run, and those of its stages that were not recorded whole."""
    assert record.mlflow_run_id
    if record.stages:  # the last student's figures, so that ladder runs can be compared in one list
        figures, stamp = metrics_of(record.stages[-1]), int(datetime.fromisoformat(record.finished or now()).timestamp() * 1000)
        tracker.log_points(record.mlflow_run_id, [(f"last/{key}", value, 0, stamp) for key, value in figures.items()])
    tracker.close_children(record.mlflow_run_id, "KILLED" if ENDS[record.status] == "FINISHED" else ENDS[record.status])
    tracker.close(record.mlflow_run_id, ENDS[record.status])


def close_earlier(home: Home, tracker: Tracker) -> None:
    """Close in MLflow what earlier runs could not, because it was away when they ended."""
    for record in all_runs(home):
        missing = tuple(said for said in record.unrecorded if not said.startswith(f"{END}: "))
        if missing != record.unrecorded and record.status != "running" and record.mlflow_uri == tracker.uri:
            with suppress(RecordRefused):  # somebody has deleted it there
                close_in_mlflow(tracker, record)
            save(home, record.model_copy(update={"unrecorded": missing}))


def _links(flow_run_id: str | None) -> dict[str, str]:
    """Tags by which MLflow leads to Prefect: the flow run's id, and its page in the run's description."""
    url = _prefect_url(flow_run_id)
    page = {"mlflow.note.content": f"[Run in Prefect]({url})"} if url else {}
    return ({"prefect.flow_run_id": flow_run_id} if flow_run_id else {}) | page


def _prefect_url(flow_run_id: str | None) -> str | None:
    """Page of the flow run on a configured server; the embedded one is gone when the run ends."""
    api = os.environ.get("PREFECT_API_URL")
    if not api or not flow_run_id:
        return None
    base = os.environ.get("PREFECT_UI_URL") or api.rstrip("/").removesuffix("/api")
    return f"{base}/runs/flow-run/{flow_run_id}"


def kept_before(ladder: Ladder, start_at: str | None) -> tuple[str, ...]:
    """Names of the models before `start_at`, the teacher among them.

    Raises:
        UserError: No stage has that name.
    """
    if start_at is None:
        return ()
    names = [stage.name for stage in ladder.stages]
    if start_at not in names:
        raise UserError.about("--start-at", start_at, f"a stage of this ladder: {', '.join(names)}", suggest(start_at, names).strip())
    return ("teacher", *names[: names.index(start_at)])
