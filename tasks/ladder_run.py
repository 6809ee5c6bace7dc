"""A ladder run from its opening to its end, whatever the end is: its record is always true, and always on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from conf.errors import LadderError, UserError
from conf.home import home
from conf.load import suggest, to_yaml
from conf.schema import Ladder
from tasks import tracking
from tasks.compute import corpus_of, tracker_of
from tasks.console import log
from tasks.environment import environment
from tasks.fingerprint import fingerprint
from tasks.flavour import metrics_of
from tasks.records import DataRecord, RunRecord, StageRecord, Status
from tasks.runs import Context, RunLock, new_name, now, save, unfinished

ENDS: dict[Status, tracking.RunStatus] = {"done": "FINISHED", "stopped": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class LadderRun(AbstractContextManager["LadderRun"]):
    """One run: opened by `open`, fed by `keep`, ended by `finish` or by an exception."""

    def __init__(self, record: RunRecord, context: Context, lock: RunLock) -> None:
        self.record, self.context, self.lock = record, context, lock
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
    ) -> LadderRun:
        """Begin a run, or go on with the last one of the same command if it died or was interrupted.

        Raises:
            UserError: `start_at` names no stage, or MLflow's address answers nothing.
        """
        paths, kept = home(), kept_before(ladder, start_at)
        settings_hash = fingerprint(ladder.model_dump(mode="json"))
        earlier = unfinished(paths, settings_hash, start_at, fresh)
        name = earlier.run if earlier else new_name(ladder.name)
        lock = RunLock(paths, name)
        if not lock.take():
            earlier, name = None, new_name(ladder.name)
            lock = RunLock(paths, name)
            lock.take()
        if earlier:
            log.info("continuing the interrupted run %s", name)
        tracker, known = tracker_of(paths), environment()
        yaml_text = to_yaml(ladder)
        mlflow_run_id = tracker.open_ladder(
            name,
            ladder.name,
            settings_hash,
            yaml_text,
            params={"ladder": source, "overrides": list(overrides), "start_at": start_at, "fresh": fresh, "seed": ladder.seed},
            environment=known,
            tags={"prefect.flow_run_id": prefect_run_id} if prefect_run_id else {},
            continue_id=earlier.mlflow_run_id if earlier else None,
        )
        record = RunRecord(
            run=name,
            ladder=ladder.name,
            workload=ladder.workload,
            status="running",
            settings_hash=settings_hash,
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
        return run

    def save(self, record: RunRecord) -> None:
        """Make `record` the truth, in memory and on disk."""
        self.record = record
        save(self.context.paths, record)

    def keep_data(self, data: DataRecord) -> DataRecord:
        """Note the corpus, here and in MLflow."""
        assert self.context.mlflow_run_id
        tracker_of(self.context.paths).log_dataset(self.context.mlflow_run_id, self.record.ladder, corpus_of(data))
        self.save(self.record.model_copy(update={"data": data}))
        return data

    def keep(self, model: StageRecord) -> StageRecord:
        """Note a finished model: the teacher first, then the stages in order."""
        update = {"teacher": model} if self.record.teacher is None else {"stages": (*self.record.stages, model)}
        self.save(self.record.model_copy(update=update))
        return model

    def finish(self) -> RunRecord:
        """The record of a run that came to its end: done, or stopped by the last stage's gate."""
        last = self.record.stages[-1] if self.record.stages else None
        stopped = last is not None and last.gate == "stopped"
        reasons = "; ".join(last.gate_reasons) if last and stopped else None
        return self._ended("stopped" if stopped else "done", f"the gate stopped the ladder: {reasons}" if reasons else None)

    def _ended(self, status: Status, error: str | None) -> RunRecord:
        return self.record.model_copy(
            update={"status": status, "error": error, "finished": now(), "seconds": time.monotonic() - self.began}
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            interrupted = not isinstance(error, Exception)
            text = "interrupted" if interrupted else str(error) if isinstance(error, LadderError) else f"{type(error).__name__}: {error}"
            self._close(self._ended("interrupted" if interrupted else "failed", text))
        else:
            self._close(self.record)
        self.lock.release()

    def _close(self, record: RunRecord) -> None:
        """Record the end; what cannot be written must not hide the error that ended the run."""
        for act in (lambda: self.save(record), lambda: self._close_mlflow(record.status)):
            try:
                act()
            except LadderError as error:
                log.warning("%s", error)

    def _close_mlflow(self, status: Status) -> None:
        assert self.context.mlflow_run_id
        tracker = tracker_of(self.context.paths)
        if self.record.stages:  # the last student's figures, so that ladder runs can be compared in one list
            figures, stamp = metrics_of(self.record.stages[-1]), int(time.time() * 1000)
            tracker.log_points(self.context.mlflow_run_id, [(f"last/{key}", value, 0, stamp) for key, value in figures.items()])
        tracker.close_children(self.context.mlflow_run_id, ENDS[status])
        tracker.close(self.context.mlflow_run_id, ENDS[status])


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
