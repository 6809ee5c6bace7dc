"""The record in MLflow: one run for a ladder run, a child for the teacher and each stage, their models linked both ways.

With its parts tracking_client.py and tracking_model.py it alone imports mlflow, and only when first used. Every call names its run:
there is no active run, so tasks, threads and processes do not disturb each other. The store stays the truth; a record that is lost
costs no computation.
"""

from __future__ import annotations

import functools
import getpass
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

from conf.errors import LadderError, StoreError
from conf.home import Home, disk_errors
from tasks import flavour, tracking_model
from tasks.records import StageRecord
from tasks.tracking_client import first_line, is_server, open_client, run_url, tracking_uri, turn, ui_command

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from models.corpus import Corpus

__all__ = ["Curves", "RunStatus", "StageRun", "Tracker", "connect", "run_url", "tracking_uri", "ui_command"]

P = ParamSpec("P")
T = TypeVar("T")
RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

PARAMS_PER_CALL, METRICS_PER_CALL = 100, 1000  # MLflow's limits
FLUSH_SECONDS = 2.0


@dataclass(frozen=True)
class StageRun:
    """A child run, as `Tracker.open_stage` found or made it.

    Attributes:
        run_id: MLflow's id of the run.
        state: `new`; `continued`, an interrupted run that was opened again; `finished`, a run that this ladder run closed before and
            that needs nothing more.
        last_steps: Metric -> last step that the run holds.
    """

    run_id: str
    state: Literal["new", "continued", "finished"] = "new"
    last_steps: dict[str, int] = field(default_factory=dict)


def _told(method: Callable[Concatenate[Tracker, P], T]) -> Callable[Concatenate[Tracker, P], T]:
    """Turn what MLflow and the disk raise into one sentence of ours."""

    @functools.wraps(method)
    def call(self: Tracker, /, *args: P.args, **kwargs: P.kwargs) -> T:
        from mlflow.exceptions import MlflowException

        try:
            with disk_errors(self.home):
                return method(self, *args, **kwargs)
        except MlflowException as error:
            raise LadderError(f"The record in MLflow ({self.uri}) failed: {first_line(error)}. Run the same command to go on.") from None
        except OSError as error:
            raise StoreError(f"The record in MLflow ({self.uri}) could not be written: {error}.") from None

    return call


def connect(home: Home) -> Tracker:
    """Open the record, and make it first where it is not there; see `tracking_client.open_client` for what it refuses."""
    uri = tracking_uri(home)
    return Tracker(home, uri, open_client(home, uri))


@dataclass(frozen=True)
class Tracker:
    """A connection to the record; made by `connect`."""

    home: Home
    uri: str
    client: MlflowClient

    @_told
    def experiment(self, ladder: str) -> str:
        """Id of the ladder's experiment, which is made, or restored from MLflow's trash."""
        with turn(self.home):
            found = self.client.get_experiment_by_name(ladder)
            if found is None:
                # Without a location, a database puts artifacts into ./mlruns of the working directory; a server knows its own.
                place = None if is_server(self.uri) else (self.home.mlflow / "artifacts" / ladder).as_uri()
                # The tag has MLflow's page open on training runs, not on its view of chat traces.
                tags = {"mlflow.experimentKind": "custom_model_development"}
                return self.client.create_experiment(ladder, artifact_location=place, tags=tags)
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return found.experiment_id

    @_told
    def open_ladder(
        self,
        run: str,
        ladder: str,
        settings_hash: str,
        resolved_yaml: str,
        *,
        params: Mapping[str, Any],
        environment: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        continue_id: str | None = None,
    ) -> str:
        """Open the parent run: `continue_id` if the record still has it, else a new one.

        Args:
            run: Name of our run.
            ladder: Name of the ladder: the experiment.
            settings_hash: Hash of the resolved settings.
            resolved_yaml: The resolved settings, kept as `ladder.yaml`.
            params: Settings to compare runs by; nested ones become dotted keys.
            environment: Packages and machine, kept as `environment.json`; its plain values become tags, `git_commit` and `user` MLflow's.
            tags: More tags, such as `prefect.flow_run_id`.
            continue_id: MLflow run id of an interrupted attempt.

        Returns:
            MLflow's id of the parent run.
        """
        if continue_id is not None and self._reopen(continue_id):
            self._set_tags(continue_id, tags or {})
            return continue_id
        plain = {f"environment.{key}": str(value) for key, value in environment.items() if isinstance(value, str | int | float)}
        own = {
            "ladder.run": run,
            "ladder.fingerprint": settings_hash,
            "mlflow.user": str(environment.get("user") or _user()),
            "mlflow.source.name": "ladder",
        }
        commit = {"mlflow.source.git.commit": str(environment["git_commit"])} if environment.get("git_commit") else {}
        experiment_id = self.experiment(ladder)
        run_id = self.client.create_run(experiment_id, tags={**plain, **own, **commit, **(tags or {})}, run_name=run).info.run_id
        self._log_params(run_id, params)
        self.client.log_text(run_id, resolved_yaml, "ladder.yaml")
        self.client.log_text(run_id, json.dumps(dict(environment), indent=1, sort_keys=True, default=str), "environment.json")
        return run_id

    @_told
    def open_stage(
        self,
        parent_run_id: str,
        name: str,
        fingerprint: str,
        *,
        settings: Mapping[str, Any],
        teacher_run_ids: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        reused_from: str | None = None,
    ) -> StageRun:
        """Open the child run of the teacher or of a stage: the one that this ladder run has already, else a new one.

        Args:
            parent_run_id: MLflow run id of the ladder run.
            name: Name of the stage, or `teacher`.
            fingerprint: Identity of the stage.
            settings: Its settings; they become parameters, values over 500 characters cut.
            teacher_run_ids: MLflow run ids of its teachers, nearest first; their models become the run's inputs.
            tags: More tags, such as `prefect.flow_run_id`.
            reused_from: The run that computed it, when it is not computed now.
        """
        parent = self.client.get_run(parent_run_id)
        lineage = {"ladder.teacher_run_id": ",".join(teacher_run_ids)} if teacher_run_ids else {}
        found = self._child(parent, name, fingerprint)
        if found is None:
            own = {"mlflow.parentRunId": parent_run_id, "ladder.stage": name, "ladder.fingerprint": fingerprint}
            own |= {key: parent.data.tags[key] for key in ("mlflow.user", "mlflow.source.name") if key in parent.data.tags}
            own |= {"ladder.reused_from": reused_from} if reused_from else {}
            made = self.client.create_run(parent.info.experiment_id, tags={**own, **lineage, **(tags or {})}, run_name=name)
            stage = StageRun(made.info.run_id)
        elif found.info.status == "FINISHED":
            return StageRun(found.info.run_id, "finished", _last_steps(found))
        else:
            self.client.update_run(found.info.run_id, status="RUNNING")
            self._set_tags(found.info.run_id, {**lineage, **(tags or {})})
            stage = StageRun(found.info.run_id, "continued", _last_steps(found))
        self._log_params(stage.run_id, settings)
        tracking_model.link_teachers(self.client, stage.run_id, teacher_run_ids)
        return stage

    @_told
    def curves(self, stage: StageRun) -> Curves:
        """A buffer for the curves of an open stage run; it skips what an interrupted attempt has logged."""
        return Curves(self, stage)

    @_told
    def log_points(self, run_id: str, points: Sequence[tuple[str, float, int, int]], model_id: str | None = None) -> None:
        """Log points `(metric, value, step, milliseconds since 1970)`, in as few calls as MLflow allows."""
        from mlflow.entities import Metric

        metrics = [Metric(key, float(value), stamp, step, model_id=model_id) for key, value, step, stamp in points]
        for start in range(0, len(metrics), METRICS_PER_CALL):
            self.client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_CALL])

    @_told
    def log_dataset(self, run_id: str, name: str, corpus: Corpus) -> None:
        """Record what a run learned from: the corpus's content hash as digest, its folder as source, its size as profile."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=corpus.content_hash[:36],
            source_type="local",
            source=json.dumps({"uri": str(corpus.folder)}),
            schema=json.dumps(flavour.schema_of(corpus.info)),
            profile=json.dumps(flavour.profile_of(corpus.info)),
        )
        self.client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training")])])

    @_told
    def finish_stage(
        self, run_id: str, record: StageRecord, *, workload: str, folder: Path | None, original_run_id: str | None = None
    ) -> str:
        """Record a finished stage whole, and close its run. Doing it twice records it once.

        Args:
            run_id: The stage's open run.
            record: What was made; kept as `record.json` and `slices.json`, its figures as metrics.
            workload: `causal-lm`, `sequence-classification` or `image-classification`.
            folder: Hugging Face folder to keep as `student/` (`teacher/` for the root); none: link a model without its bytes.
            original_run_id: MLflow run that made a reused stage: its model is linked, not stored again.

        Returns:
            MLflow's id of the model.
        """
        model_id = tracking_model.model_of(self.client, original_run_id) if original_run_id not in (None, run_id) else None
        model_id = model_id or tracking_model.log_model(self.client, run_id, record, workload, folder)
        tracking_model.link_output(self.client, run_id, model_id, record.steps)
        now, known = int(time.time() * 1000), self.client.get_run(run_id).data.metrics
        figures = {key: value for key, value in flavour.metrics_of(record).items() if not _same(known.get(key), value)}
        self.log_points(run_id, [(key, value, record.steps, now) for key, value in figures.items()], model_id)
        self.client.log_text(run_id, record.model_dump_json(indent=1), "record.json")
        self.client.log_text(run_id, json.dumps(record.slices, indent=1), "slices.json")
        tags = {"ladder.gate": record.gate or "none", "ladder.model": f"models:/{model_id}", "ladder.weights_sha256": record.weights_sha256}
        self._set_tags(run_id, tags)
        self.client.set_terminated(run_id, "FINISHED")
        return model_id

    @_told
    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run, such as `ladder.gate`."""
        self._set_tags(run_id, tags)

    @_told
    def log_artifact(self, run_id: str, path: Path) -> None:
        """Keep a file, such as `report.html`, at the top of a run's artifacts."""
        self.client.log_artifact(run_id, str(path))

    @_told
    def close(self, run_id: str, status: RunStatus) -> None:
        """Close a run."""
        self.client.set_terminated(run_id, status)

    @_told
    def close_children(self, parent_run_id: str, status: RunStatus) -> None:
        """Close the children that a failed or interrupted ladder run left open."""
        experiment_id = self.client.get_run(parent_run_id).info.experiment_id
        for child in self.client.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{parent_run_id}'"):
            if child.info.status == "RUNNING":
                self.client.set_terminated(child.info.run_id, status)

    def resolve_model(self, uri: str) -> Path:
        """Local Hugging Face folder of a recorded model; see `tracking_model.resolve`."""
        return tracking_model.resolve(self.client, uri, self.uri, self.home.mlflow / "downloads")

    def _reopen(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        experiment = self.client.get_experiment(run.info.experiment_id)
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        if run.info.lifecycle_stage == "deleted":
            self.client.restore_run(run_id)
        self.client.update_run(run_id, status="RUNNING")
        return True

    def _child(self, parent: Run, name: str, fingerprint: str) -> Run | None:
        wanted = {"mlflow.parentRunId": parent.info.run_id, "ladder.stage": name, "ladder.fingerprint": fingerprint}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
        return next(iter(self.client.search_runs([parent.info.experiment_id], query, max_results=1)), None)

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        if tags:
            self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def _log_params(self, run_id: str, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        there = self.client.get_run(run_id).data.params  # a parameter cannot be changed
        params = [Param(key, value) for key, value in flavour.flatten(settings).items() if key not in there]
        for start in range(0, len(params), PARAMS_PER_CALL):
            self.client.log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])


class Curves:
    """Points of one run's curves, sent in batches: at most every two seconds, and when `flush` is called."""

    def __init__(self, tracker: Tracker, stage: StageRun) -> None:
        self._tracker, self._run_id, self._last = tracker, stage.run_id, stage.last_steps
        self._points: list[tuple[str, float, int, int]] = []
        self._flushed = time.monotonic()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of a step; what the run holds up to that step already is skipped, metric by metric."""
        now = int(time.time() * 1000)
        self._points += [(key, value, step, now) for key, value in values.items() if step > self._last.get(key, -1)]
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what is held back; call it before every checkpoint, so that a resumed run has every point."""
        points, self._points = self._points, []
        if points:
            self._tracker.log_points(self._run_id, points)
        self._flushed = time.monotonic()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "unknown"


def _same(known: float | None, value: float) -> bool:
    return known is not None and (known == value or (math.isnan(known) and math.isnan(value)))


def _last_steps(run: Run) -> dict[str, int]:
    return {metric.key: metric.step for metric in run.data.to_proto().metrics}
