"""The tracker: an MLflow run per ladder run, a child per model, linked.

This room alone imports mlflow, and only when it is first used. Every call names its run:
there is no active run, so tasks, threads and processes do not disturb each other. The store stays the truth; a record that is lost
costs no computation.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from conf.home import Home
from conf.secrets import masked
from tasks.records.run import StageRecord
from tasks.tracking import descriptions, models, runs
from tasks.tracking.client import (
    RecordRefused,
    is_server,
    open_client,
    probe,
    run_url,
    setup_lock,
    tracking_uri,
    translate_errors,
    ui_command,
)
from tasks.tracking.figures import dataset_of, metrics_of
from tasks.tracking.runs import OpenLadder, Point, RunStatus, StageRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from models.data.corpus import Corpus

__all__ = ["RecordRefused", "RunStatus", "StageRun", "Tracker", "connect", "run_url", "tracking_uri", "ui_command"]

P = ParamSpec("P")
T = TypeVar("T")


def _translated(method: Callable[Concatenate[Tracker, P], T]) -> Callable[Concatenate[Tracker, P], T]:
    @functools.wraps(method)
    def call(self: Tracker, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with translate_errors(self.home, self.address):
            return method(self, *args, **kwargs)

    return call


def connect(home: Home) -> Tracker:
    """Open the record, and make it first where it is not there; errors as `client.open_client`."""
    uri = tracking_uri(home)
    return Tracker(home, uri, open_client(home, uri))


@dataclass(frozen=True)
class Tracker:
    """A connection to the record; made by `connect`."""

    home: Home
    address: str = field(repr=False)  # may hold a password
    client: MlflowClient

    @property
    def uri(self) -> str:
        """The tracking URI, without passwords."""
        return masked(self.address)

    @_translated
    def probe(self) -> None:
        """Ask whether the record is there: a server, in a few seconds; a database is asked with the first write."""
        if is_server(self.address):
            probe(self.address)

    @_translated
    def experiment(self, ladder: str) -> str:
        """Id of the ladder's experiment, which is made, or restored from MLflow's trash."""
        with setup_lock(self.home):
            # Without a location, a database puts artifacts into ./mlruns of the working directory; a server knows its own.
            location = None if is_server(self.address) else (self.home.mlflow / "artifacts" / ladder).as_uri()
            return runs.find_or_create_experiment(self.client, ladder, location)

    @_translated
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
        if continue_id is not None and runs.reopen(self.client, continue_id):
            runs.set_tags(self.client, continue_id, tags or {})
            runs.describe(self.client, continue_id, resolved_yaml, params, environment)
            return continue_id
        plain = {f"environment.{key}": str(value) for key, value in environment.items() if isinstance(value, str | int | float)}
        own = {
            "ladder.run": run,
            "ladder.fingerprint": settings_hash,
            "mlflow.user": str(environment.get("user") or runs.user()),
            "mlflow.source.name": "ladder",
        }
        commit = {"mlflow.source.git.commit": str(environment["git_commit"])} if environment.get("git_commit") else {}
        experiment_id = self.experiment(ladder)
        run_id = self.client.create_run(experiment_id, tags={**plain, **own, **commit, **(tags or {})}, run_name=run).info.run_id
        runs.describe(self.client, run_id, resolved_yaml, params, environment)
        return run_id

    @_translated
    def find_ladder(self, run: str, ladder: str) -> str | None:
        """MLflow's id of the parent run of our run `run`; None where it was never opened."""
        return runs.find_ladder(self.client, run, ladder)

    @_translated
    def open_ladders(self, ladder: str) -> list[OpenLadder]:
        """The open runs of a ladder, of whatever machine, that name their flow run."""
        return runs.open_ladders(self.client, ladder)

    @_translated
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
        lineage = {"ladder.teacher_run_id": ",".join(teacher_run_ids)} if teacher_run_ids else {}
        stage = runs.open_child(self.client, parent_run_id, name, fingerprint, {**lineage, **(tags or {})}, reused_from)
        if stage.state != "finished":
            runs.log_params(self.client, stage.run_id, settings)
            models.link_teachers(self.client, stage.run_id, teacher_run_ids)
        return stage

    @_translated
    def log_points(self, run_id: str, points: Sequence[Point], model_id: str | None = None) -> None:
        """Log points, in as few calls as MLflow allows; one that the run holds already stays one."""
        runs.log_points(self.client, run_id, points, model_id)

    @_translated
    def log_dataset(self, run_id: str, name: str, corpus: Corpus) -> None:
        """Record the data of a run: the corpus's content hash as digest, its folder as source, its size as profile."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        about = dataset_of(corpus.info, corpus.content_hash, corpus.folder)
        inputs = [DatasetInput(Dataset(name=name, **about), tags=[InputTag("mlflow.data.context", "training")])]
        runs.again_after_race(lambda: self.client.log_inputs(run_id, datasets=inputs))

    @_translated
    def finish_stage(
        self,
        run_id: str,
        record: StageRecord,
        *,
        workload: str,
        folder: Path | None,
        facts: Mapping[str, str] | None = None,
        add_parts: Callable[[Path], None] | None = None,
        original_run_id: str | None = None,
        curve: Callable[[], Iterable[tuple[int, Mapping[str, float]]]] | None = None,
    ) -> str:
        """Record a finished stage whole, and close its run. Doing it twice records it once.

        Args:
            run_id: The stage's open run.
            record: The model's record; kept as `record.json` and `slices.json`, its figures as metrics.
            workload: `causal-lm`, `sequence-classification` or `image-classification`.
            folder: Hugging Face folder to keep as the model `student` (`teacher` for the root); none: link a model without its bytes.
            facts: More about the model, such as `license` and `base_model`.
            add_parts: Writes a tokenizer or an image processor that `folder` lacks into an empty folder.
            original_run_id: MLflow run that made a reused stage: if it was recorded whole, its model is linked, not stored again.
            curve: Gives steps and their values, to fill gaps of the run; not called where a model is linked.

        Returns:
            MLflow's id of the model.
        """
        made_before = record.reused or original_run_id is not None
        model_id = models.find_recorded_model(self.client, run_id, record.fingerprint, original_run_id) if made_before else None
        if model_id is None:
            model_id = models.log_model(self.client, run_id, record, workload, folder, facts, add_parts)
            runs.log_missing(self.client, run_id, curve() if curve else ())
        models.link_output(self.client, run_id, model_id, record.steps)
        runs.log_figures(self.client, self.client.get_run(run_id), metrics_of(record), record.steps, model_id)
        self.client.log_text(run_id, record.model_dump_json(indent=1), "record.json")
        self.client.log_text(run_id, json.dumps(record.slices, indent=1), "slices.json")
        tags = {"ladder.gate": record.gate or "none", "ladder.model": f"models:/{model_id}", "ladder.weights_sha256": record.weights_sha256}
        runs.set_tags(self.client, run_id, tags)
        runs.terminate(self.client, run_id, "FINISHED")
        return model_id

    @_translated
    def link_reused(self, parent_run_id: str, record: StageRecord, original_run_id: str | None) -> str | None:
        """Link a ladder run to the run that recorded a reused model, so that the list gets no second one of it.

        Returns:
            MLflow's id of that run; None where there is none, or where the model was judged otherwise now.
        """
        experiment_id = self.client.get_run(parent_run_id).info.experiment_id
        figures = metrics_of(record)
        found = models.recorded_run(self.client, experiment_id, record.fingerprint, original_run_id, figures)
        model_id = found and models.model_of(self.client, found.info.run_id)
        if found is None or model_id is None:
            return None
        models.link_output(self.client, parent_run_id, model_id, record.steps)
        runs.set_tags(self.client, parent_run_id, {f"ladder.reused.{record.name}": found.info.run_id})
        return found.info.run_id

    @_translated
    def log_headline(self, run_id: str, shown: Sequence[StageRecord], before: Sequence[str]) -> None:
        """Keep a ladder run's summary: few figures and the verdict of each model, and a description with a line for each.

        Args:
            run_id: MLflow run id of the ladder run.
            shown: The finished models, the root first.
            before: Paragraphs that stand first in the description.
        """
        run = self.client.get_run(run_id)
        runs.log_figures(self.client, run, {key: value for model in shown for key, value in descriptions.headline(model).items()})
        tags = {f"ladder.gate.{model.name}": model.gate for model in shown if model.gate}
        tags |= {f"ladder.decision.{model.name}": model.decision for model in shown if model.decision}
        tags[descriptions.NOTE] = descriptions.describe_ladder(shown, run.info.experiment_id, before)
        runs.set_tags(self.client, run_id, tags)

    @_translated
    def describe_stage(self, run_id: str, record: StageRecord, lineage: Sequence[StageRecord]) -> None:
        """Describe a run and its model: who taught it, at which settings, how good it is against parent and root, how to load it."""
        experiment_id = self.client.get_run(run_id).info.experiment_id
        text = descriptions.describe_model(record, lineage, experiment_id)
        runs.set_tags(self.client, run_id, {descriptions.NOTE: text})
        model_id = models.model_of(self.client, run_id)
        if model_id and self.client.get_logged_model(model_id).source_run_id == run_id:
            about = f"**{record.name}**. {text}\n\n{descriptions.how_to_load(model_id)}"
            self.client.set_logged_model_tags(model_id, {descriptions.NOTE: about})

    @_translated
    def log_test(self, run_id: str, figures: Mapping[str, float], step: int) -> None:
        """Keep a model's figures on the test split, as `test/...`."""
        runs.log_figures(self.client, self.client.get_run(run_id), {f"test/{key}": value for key, value in figures.items()}, step)

    @_translated
    def is_child(self, run_id: str, parent_run_id: str) -> bool:
        """Whether a model's run belongs to a ladder run, and not to the one that it was reused from."""
        return self.client.get_run(run_id).data.tags.get("mlflow.parentRunId") == parent_run_id

    @_translated
    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run, such as `ladder.gate`."""
        runs.set_tags(self.client, run_id, tags)

    @_translated
    def log_artifact(self, run_id: str, path: Path) -> None:
        """Keep a file, such as `report.html`, at the top of a run's artifacts."""
        self.client.log_artifact(run_id, str(path))

    @_translated
    def close(self, run_id: str, status: RunStatus, ended: int | None = None) -> None:
        """Close a run; `ended`: when it ended, in milliseconds since 1970, where that is not now."""
        runs.terminate(self.client, run_id, status, ended)

    @_translated
    def close_children(self, parent_run_id: str, status: RunStatus) -> None:
        """Close the children that a ladder run left open: a failed or interrupted one, or one whose stages were not all recorded."""
        runs.close_children(self.client, parent_run_id, status)

    def resolve_model(self, uri: str) -> Path:
        """Local Hugging Face folder of a recorded model; see `models.resolve`."""
        return models.resolve(self.client, uri, self.address, self.home.mlflow / "downloads")
