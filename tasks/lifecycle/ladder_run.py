"""A ladder run as a context manager: its record is on disk from open to end."""

from __future__ import annotations

import logging
import os
import time
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from uuid import UUID

from prefect.runtime import flow_run

from conf.errors import LadderError, StoreError
from conf.home import Home, home, protect
from conf.loading.yaml_output import to_yaml
from conf.schema.ladder import Ladder
from conf.served import configured_api
from tasks.lifecycle.abandoned import close_abandoned
from tasks.lifecycle.dead_runs import attempt_of, cancel_children, claim
from tasks.lifecycle.mlflow_ends import DATA, SUMMARY, close_earlier, close_in_mlflow, log_data, log_summary, mlflow_run_of
from tasks.lifecycle.new_run import edited, new_lock
from tasks.lifecycle.request import ResolvedRequest, kept_before
from tasks.records.choice.generation import GenerationRecord
from tasks.records.choice.route import RouteDecision
from tasks.records.run import DataRecord, RunRecord, StageRecord, Status
from tasks.runtime import cancellation
from tasks.runtime.environment import environment
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import api_address, require_server, root_cause
from tasks.runtime.prefect_watcher import PrefectWatcher
from tasks.runtime.runs.run_lock import RunLock
from tasks.runtime.runs.run_registry import END, Context, not_before, now, save, unfinished, with_open_end
from tasks.tracking.null import NullTracker
from tasks.tracking.recorder import Recorder, recorder_of, tracker_of
from tasks.tracking.tracker import Tracker
from tasks.training.identity import settings_hash


class LadderRun(AbstractContextManager["LadderRun"]):
    """One run: opened by `open`, fed by `keep`, ended by `finish` or by an exception.

    Its record is on disk before MLflow's run exists: whatever kills the process, the next run finds the record and closes MLflow's run.
    """

    def __init__(self, record: RunRecord, context: Context, lock: RunLock, resolved: ResolvedRequest, continued: bool) -> None:
        self.record, self.context, self.lock = record, context, lock
        self.resolved, self.continued = resolved, continued
        self.watcher = PrefectWatcher(UUID(record.prefect_run_id)) if record.prefect_run_id else None
        self.watching = ExitStack()
        self.began = time.monotonic()

    @classmethod
    def open(cls, resolved: ResolvedRequest) -> LadderRun:
        """Write the record of a new run, or of the last one of the same command if that died, was interrupted or cancelled.

        Raises:
            UserError: `start_at` names no stage, or MLflow's address answers nothing.
        """
        request, ladder, paths = resolved.request, resolved.ladder, home()
        protect(paths)  # for a worker's process, which no command of ours has started
        kept, tracker = kept_before(ladder, request.start_at), _tracker(ladder, paths)
        earlier = unfinished(paths, settings_hash(ladder, request.kind), request.start_at, request.fresh)
        lock = RunLock(paths, earlier.run) if earlier else None
        if flow_run.id:
            claim(paths, flow_run.id)
        if lock is None or not lock.take():  # another process continues the earlier run at this moment
            earlier, lock = None, new_lock(resolved, paths)
        record = _record(resolved, lock.run, tracker.uri, earlier)
        context = Context(
            run=record.run,
            ladder=ladder.name,
            home=str(paths.root),
            base=str(resolved.base),
            fresh=request.fresh,
            start_at=request.start_at,
            kept=kept,
            system_metrics=ladder.system_metrics,
        )
        run = cls(record, context, lock, resolved, continued=earlier is not None)
        run.save(record)
        (Path(record.folder) / "ladder.yaml").write_text(to_yaml(ladder), encoding="utf-8")
        if earlier:
            unused = f"; the name {request.name} is not used" if request.name not in (None, earlier.run) else ""
            log.info("continuing the interrupted run %s%s", record.run, unused)
        log.info("run %s", record.run)
        return run

    def __enter__(self) -> LadderRun:
        with ExitStack() as opening:
            opening.push(self)  # a run that cannot be opened ends as any other
            self._open_in_mlflow()
            if self.watcher:
                self.watching.enter_context(self.watcher)
            opening.pop_all()
        return self

    def _open_in_mlflow(self) -> None:
        tracker, record, request = _tracker(self.resolved.ladder, self.context.paths), self.record, self.resolved.request
        if isinstance(tracker, Tracker):
            close_earlier(self.context.paths, tracker)
            close_abandoned(self.context.paths, tracker, record.ladder)
        params = {
            "ladder": record.source,
            "overrides": list(record.overrides),
            "start_at": request.start_at,
            "fresh": request.fresh,
            "seed": self.resolved.ladder.seed,
        }
        run_id = tracker.open_ladder(
            record.run,
            record.ladder,
            record.settings_hash,
            (Path(record.folder) / "ladder.yaml").read_text(encoding="utf-8"),
            params=params,
            environment=record.environment,
            tags={**_links(record.prefect_run_id), **({"mlflow.user": record.by} if record.by else {})},
            continue_id=mlflow_run_of(record, tracker) if self.continued and isinstance(tracker, Tracker) else None,
        )
        self.context = self.context.model_copy(update={"mlflow_run_id": run_id})
        if run_id is not None:
            self.save(record.model_copy(update={"mlflow_run_id": run_id, "mlflow_experiment_id": tracker.experiment(record.ladder)}))

    @property
    def recorder(self) -> Recorder:
        """Recorder of this run in MLflow."""
        return recorder_of(self.context.paths, self.context.run)

    def save(self, record: RunRecord) -> None:
        """Replace the record, in memory and on disk."""
        self.record = record
        save(self.context.paths, record)

    def keep_data(self, data: DataRecord) -> DataRecord:
        """Add the corpus to the record, here and in MLflow."""
        self.save(self.record.model_copy(update={"data": data}))
        self.recorder.attempt(DATA, self.context.mlflow_run_id, partial(log_data, record=self.record))
        return data

    def keep_generation(self, made: tuple[GenerationRecord, ...]) -> None:
        """Set the rounds of generated rows, as far as they have come."""
        self.save(self.record.model_copy(update={"generation": made}))

    def keep(self, model: StageRecord) -> StageRecord:
        """Add a finished model to the record: the teacher first, then the stages in order."""
        update = {"teacher": model} if self.record.teacher is None else {"stages": (*self.record.stages, model)}
        self.save(self.record.model_copy(update=update))
        summary = partial(log_summary, record=self.record)
        self.recorder.attempt(SUMMARY, self.context.mlflow_run_id, summary)
        if self.watcher:
            require_server()
        return model

    def keep_route(self, decision: RouteDecision) -> None:
        """Set the choice of the route, as far as it has come: a run that is continued goes on from it."""
        self.save(self.record.model_copy(update={"route": decision}))

    def plan(self, stages: tuple[str, ...]) -> None:
        """Set the names of the planned stages, where they are not the ladder's."""
        self.save(self.record.model_copy(update={"planned": stages}))

    def plan_before(self, stage: str, assistant: str) -> None:
        """Add a stage that a gate inserts before another one."""
        planned = [name for name in self.record.planned if name != assistant]
        planned.insert(planned.index(stage), assistant)
        self.save(self.record.model_copy(update={"planned": tuple(planned)}))

    def finish(self, refused: str | None = None) -> RunRecord:
        """The record at the end: all stages made, stopped by the last one's gate, or an export refused."""
        if refused:
            return self._ended("failed", refused)
        last = self.record.stages[-1] if self.record.stages else None
        stopped = last is not None and last.gate == "stopped"
        reasons = "; ".join(last.gate_reasons) if last and stopped else None
        return self._ended("stopped" if stopped else "done", f"the gate stopped the ladder: {reasons}" if reasons else None)

    def _ended(self, status: Status, error: str | None) -> RunRecord:
        finished = not_before(self.record.started)
        ended = {"status": status, "error": error, "waiting": None, "finished": finished, "seconds": time.monotonic() - self.began}
        return self.record.model_copy(update=ended)

    def save_end(self, record: RunRecord) -> None:
        """Save the record of an ended run; its end counts as missing in MLflow until MLflow's run is closed."""
        self.save(record.model_copy(update={"unrecorded": with_open_end(record)}))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        cause = root_cause(error) if error else None
        reason = cancellation.end(cause)
        with cancellation.engine_code(patience=None):  # a signal must not break into the writing of the end
            self._end(cause, reason)

    def _end(self, cause: BaseException | None, reason: cancellation.Reason | None) -> None:
        self.watching.close()
        if cause is not None:
            text = str(cause) if isinstance(cause, LadderError) else reason or f"{type(cause).__name__}: {cause}"
            self._close(self._ended(reason or "failed", text), cause)
        else:
            self._close(self.record, None)
        if reason == "cancelled" and self.watcher:
            cancel_children(self.watcher.flow_run_id)
        self.lock.release()

    def _close(self, record: RunRecord, cause: BaseException | None) -> None:
        """Record the end; a failure to write it must not hide the error that ended the run, nor repeat it."""
        for write in (lambda: self.save_end(record), self._close_mlflow, self._warn_of_missing_records):
            try:
                write()
            except LadderError as error:
                level = logging.DEBUG if isinstance(error, StoreError) and isinstance(cause, StoreError) else logging.WARNING
                log.log(level, "%s", error)

    def _close_mlflow(self) -> None:
        if self.record.mlflow_uri and isinstance(self.recorder.tracker, Tracker):  # MLflow's run may be open though its id is unknown
            self.recorder.missing[END] = "not closed"  # until it is
            close = partial(close_in_mlflow, record=self.record)
            self.recorder.attempt_with_tracker(END, close, patient=self.record.status in ("done", "stopped"))

    def _warn_of_missing_records(self) -> None:
        missing = self.recorder.missing
        if missing:
            text = "MLflow lacks: %s (%s). All of it is in the store; the same command records it once MLflow is back."
            log.warning(text, ", ".join(missing), "; ".join(dict.fromkeys(missing.values())))
        self.save(self.record.model_copy(update={"unrecorded": self.recorder.unrecorded}))


def _tracker(ladder: Ladder, home: Home) -> Tracker | NullTracker:
    return NullTracker("tracking: off") if ladder.tracking == "off" else tracker_of(home)


def _record(resolved: ResolvedRequest, run: str, mlflow_uri: str | None, earlier: RunRecord | None) -> RunRecord:
    """The first record of a run; `earlier`: the run that it continues."""
    request, ladder = resolved.request, resolved.ladder
    return RunRecord(
        run=run,
        ladder=ladder.name,
        workload=ladder.workload,
        status="running",
        settings_hash=settings_hash(ladder, request.kind),
        source=resolved.recorded_source,
        overrides=resolved.recorded_overrides,
        start_at=request.start_at,
        fresh=request.fresh,
        started=earlier.started if earlier else now(),
        pid=os.getpid(),
        folder=str(home().runs / run),
        planned=tuple(stage.name for stage in ladder.stages),
        # A run that is continued with MLflow off keeps its ids there, by which `ladder clean` finds it.
        mlflow_uri=mlflow_uri or (earlier and earlier.mlflow_uri),
        mlflow_experiment_id=earlier.mlflow_experiment_id if earlier else None,
        mlflow_run_id=earlier.mlflow_run_id if earlier else None,
        prefect_run_id=flow_run.id,
        prefect_url=_prefect_url(flow_run.id),
        prefect_api=api_address() if flow_run.id else None,
        attempt=attempt_of(flow_run.tags or []),
        restarts=ladder.compute.restarts,
        repeats=earlier.repeats if earlier else request.repeats,
        note=request.note or (earlier and earlier.note),
        by=request.by or (earlier and earlier.by),
        edited=earlier.edited if earlier else edited(resolved, home()),
        served=request.served,
        whole=request.inline_ladder is not None,
        only=request.only,
        named=tuple(model.fingerprint for model in reversed(resolved.teachers)),
        budget=resolved.shortened,
        proof=request.proof,
        search=request.search,
        route=earlier.route if earlier else None,
        environment=environment(),
    )


def _links(flow_run_id: str | None) -> dict[str, str]:
    """Tags that link MLflow to Prefect: the flow run's id, and its page in the run's description."""
    url = _prefect_url(flow_run_id)
    page = {"mlflow.note.content": f"[Run in Prefect]({url})"} if url else {}
    return ({"prefect.flow_run_id": flow_run_id} if flow_run_id else {}) | page


def _prefect_url(flow_run_id: str | None) -> str | None:
    """Page of the flow run on a configured server; the embedded one has no pages."""
    api = configured_api()
    if not api or not flow_run_id:
        return None
    base = os.environ.get("PREFECT_UI_URL") or api.rstrip("/").removesuffix("/api")
    return f"{base}/runs/flow-run/{flow_run_id}"
