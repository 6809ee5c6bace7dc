"""Find, reopen, complete and close runs in MLflow.

Functions of an explicit client. A child run has the status FINISHED if and only if its stage was recorded whole.
"""

from __future__ import annotations

import getpass
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tasks.tracking.client import is_race
from tasks.tracking.figures import flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
Point = tuple[str, float, int, int]  # metric, value, step, milliseconds since 1970

RACES = 3
PARAMS_PER_CALL, METRICS_PER_CALL = 100, 1000  # MLflow's limits


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


@dataclass(frozen=True)
class OpenLadder:
    """A ladder run that is open in MLflow.

    Attributes:
        run_id: MLflow's id of the run.
        run: Name of our run.
        flow_run: Prefect's id of its flow run.
    """

    run_id: str
    run: str
    flow_run: str


def reopen(client: MlflowClient, run_id: str) -> bool:
    """Reopen a run and its experiment; False where this record has no such run."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    experiment = client.get_experiment(run.info.experiment_id)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    if run.info.lifecycle_stage == "deleted":
        client.restore_run(run_id)
    client.update_run(run_id, status="RUNNING")
    return True


def find_or_create_experiment(client: MlflowClient, name: str, location: str | None) -> str:
    """Id of an experiment, which is restored from MLflow's trash, or made with its artifacts at `location`."""
    found = client.get_experiment_by_name(name)
    if found is None:
        # The tag has MLflow's page open on training runs, not on its view of chat traces.
        return client.create_experiment(name, artifact_location=location, tags={"mlflow.experimentKind": "custom_model_development"})
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def describe(client: MlflowClient, run_id: str, resolved_yaml: str, params: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
    """Log settings and environment of a ladder run, once; the parameters come last and tell that the rest is there."""
    if client.get_run(run_id).data.params:
        return
    client.log_text(run_id, resolved_yaml, "ladder.yaml")
    client.log_text(run_id, json.dumps(dict(environment), indent=1, sort_keys=True, default=str), "environment.json")
    log_params(client, run_id, params)


def find_ladder(client: MlflowClient, run: str, ladder: str) -> str | None:
    """Id of the parent run with the tag `ladder.run`; None where there is none."""
    experiment = client.get_experiment_by_name(ladder)
    if experiment is None:
        return None
    found = client.search_runs([experiment.experiment_id], f"tags.`ladder.run` = '{run}'", max_results=1)
    return found[0].info.run_id if found else None


def open_ladders(client: MlflowClient, ladder: str) -> list[OpenLadder]:
    """The open runs of a ladder that name their flow run."""
    experiment = client.get_experiment_by_name(ladder)
    if experiment is None:
        return []
    found = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
    named = [(run.info.run_id, run.data.tags.get("ladder.run"), run.data.tags.get("prefect.flow_run_id")) for run in found]
    return [OpenLadder(run_id, run, flow_run) for run_id, run, flow_run in named if run and flow_run]


def find_child(client: MlflowClient, parent: Run, name: str, fingerprint: str) -> Run | None:
    """The stage's run under a ladder run; the fullest, where a repeated request made a second one."""
    wanted = {"mlflow.parentRunId": parent.info.run_id, "ladder.stage": name, "ladder.fingerprint": fingerprint}
    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
    found = client.search_runs([parent.info.experiment_id], query, max_results=10)
    return max(found, key=lambda run: (run.info.status == "FINISHED", len(run.data.metrics), run.info.run_id), default=None)


def open_child(
    client: MlflowClient, parent_run_id: str, name: str, fingerprint: str, tags: Mapping[str, str], reused_from: str | None
) -> StageRun:
    """The run of a teacher or stage under a ladder run: found, and opened again unless it is finished, or made."""
    parent = client.get_run(parent_run_id)
    found = find_child(client, parent, name, fingerprint)
    if found is None:
        own = {"mlflow.parentRunId": parent_run_id, "ladder.stage": name, "ladder.fingerprint": fingerprint}
        own |= {key: parent.data.tags[key] for key in ("mlflow.user", "mlflow.source.name") if key in parent.data.tags}
        own |= {"ladder.reused_from": reused_from} if reused_from else {}
        return StageRun(client.create_run(parent.info.experiment_id, tags={**own, **tags}, run_name=name).info.run_id)
    if found.info.status == "FINISHED":
        return StageRun(found.info.run_id, "finished", last_steps(found))
    client.update_run(found.info.run_id, status="RUNNING")
    set_tags(client, found.info.run_id, tags)
    return StageRun(found.info.run_id, "continued", last_steps(found))


def close_children(client: MlflowClient, parent_run_id: str, status: RunStatus) -> None:
    """Close the children that are open; an empty twin of a whole one is deleted."""
    experiment_id = client.get_run(parent_run_id).info.experiment_id
    children = client.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{parent_run_id}'")
    whole = {run.data.tags.get("ladder.fingerprint") for run in children if run.info.status == "FINISHED"}
    for run in (run for run in children if run.info.status == "RUNNING"):
        terminate(client, run.info.run_id, status)
        if run.data.tags.get("ladder.fingerprint") in whole and not run.data.metrics:
            client.delete_run(run.info.run_id)


def terminate(client: MlflowClient, run_id: str, status: RunStatus, ended: int | None = None) -> None:
    """Close a run: now, or at a time in milliseconds since 1970, but not before it began, should the clock have been set back."""
    began = client.get_run(run_id).info.start_time or 0
    client.set_terminated(run_id, status, max(int(time.time() * 1000) if ended is None else ended, began))


def log_points(
    client: MlflowClient, run_id: str, points: Sequence[Point], model_id: str | None = None, data: tuple[str, str] | None = None
) -> None:
    """Log points, in as few calls as MLflow allows; one that the run holds already stays one.

    Args:
        client: MLflow's client.
        run_id: The run.
        points: Metrics with their values.
        model_id: The model whose figures they are.
        data: Name and digest of the data that they were measured on.
    """
    from mlflow.entities import Metric

    name, digest = data or (None, None)
    metrics = [Metric(key, float(value), stamp, step, model_id, name, digest) for key, value, step, stamp in points]
    for start in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_CALL])


def log_figures(client: MlflowClient, run: Run, figures: Mapping[str, float], step: int = 0, model_id: str | None = None) -> None:
    """Log figures of a run, but those it holds already with the same value; on a model's page stands which data they are of."""
    now = int(time.time() * 1000)
    new = [(key, value, step, now) for key, value in figures.items() if not is_equal(run.data.metrics.get(key), value)]
    used = run.inputs.dataset_inputs if model_id and run.inputs else []
    log_points(client, run.info.run_id, new, model_id, (used[0].dataset.name, used[0].dataset.digest) if used else None)


def log_missing(client: MlflowClient, run_id: str, curve: Iterable[tuple[int, Mapping[str, float]]]) -> None:
    """Log the steps of a curve that a run lacks, metric by metric."""
    lines: dict[str, dict[int, float]] = {}
    for step, values in curve:
        for key, value in values.items():
            lines.setdefault(key, {})[step] = value
    now = int(time.time() * 1000)
    for key, line in lines.items():
        there = {point.step for point in client.get_metric_history(run_id, key)}
        log_points(client, run_id, [(key, value, step, now) for step, value in line.items() if step not in there])


def again_after_race(write: Callable[[], object]) -> None:
    """Write; repeat where another process inserted the same row between MLflow's look-up and insert."""
    for _ in range(RACES):
        try:
            write()
        except Exception as error:
            if not is_race(error):
                raise
        else:
            return
    write()


def set_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run, in one call."""
    from mlflow.entities import RunTag

    if tags:
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def log_params(client: MlflowClient, run_id: str, settings: Mapping[str, Any]) -> None:
    """Log settings as parameters, nested ones with dotted keys; existing ones stay, as none can be changed."""
    from mlflow.entities import Param

    there = client.get_run(run_id).data.params
    params = [Param(key, value) for key, value in flatten(settings).items() if key not in there]
    for start in range(0, len(params), PARAMS_PER_CALL):
        client.log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])


def last_steps(run: Run) -> dict[str, int]:
    """Metric -> last step that a run holds."""
    return {metric.key: metric.step for metric in run.data.to_proto().metrics}


def is_equal(logged: float | None, value: float) -> bool:
    """Whether a figure is already logged; NaN equals NaN."""
    return logged is not None and (logged == value or (math.isnan(logged) and math.isnan(value)))


def user() -> str:
    """Name of the user, for MLflow's own column."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "unknown"
