"""Query and delete runs and registered models in MLflow, for `ladder clean`.

Functions of an open `Tracker`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tasks.tracking.client import is_server, translate_errors
from tasks.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

PAGE = 1000
KEPT = ("champion", "previous")
OWN = "ladder.run"  # tag of the versions that Ladder has registered


@dataclass(frozen=True)
class Registry:
    """Registered models that protect runs from cleaning.

    Attributes:
        promoted: Weights' hash -> `name@alias` of a version that carries an alias.
        runs: MLflow runs that a registered version comes from. One that Ladder has registered counts if it carries an alias that is kept.
    """

    promoted: dict[str, str]
    runs: frozenset[str]


def read_registry(tracker: Tracker, keep_promoted: bool = True) -> Registry:
    """Read the registry; without `keep_promoted` only the aliases `KEPT` keep the bytes of versions that Ladder has registered.

    Raises:
        RecordUnavailable: MLflow does not answer.
    """
    client = tracker.client
    promoted: dict[str, str] = {}
    with translate_errors(tracker.home, tracker.address):
        found = all_pages(lambda **page: client.search_registered_models(**page))
        marks = [(model.name, alias, str(number)) for model in found for alias, number in model.aliases.items()]
        aliased = {(name, number) for name, alias, number in marks if keep_promoted or alias in KEPT}
        versions = all_pages(lambda **page: client.search_model_versions(**page))
        held = [each for each in versions if OWN not in each.tags or (each.name, str(each.version)) in aliased]
        runs = {_run_of(tracker, version) for version in held}
        for model in found:
            for alias, number in model.aliases.items():
                weights = _weights(tracker, client.get_model_version(model.name, str(number)))
                if weights:
                    promoted[weights] = f"{model.name}@{alias}"
    return Registry(promoted, frozenset(run for run in runs if run))


def run_tree(tracker: Tracker, run_id: str) -> list[Run]:
    """A ladder run's MLflow runs, the children first, those in MLflow's trash included; empty where MLflow has none."""
    from mlflow.entities import ViewType

    with translate_errors(tracker.home, tracker.address):
        parent = or_none(lambda: tracker.client.get_run(run_id))
        if parent is None:
            return []
        query = f"tags.`mlflow.parentRunId` = '{run_id}'"
        children = all_pages(lambda **page: tracker.client.search_runs([parent.info.experiment_id], query, ViewType.ALL, **page))
        return [*children, parent]


def holds_model(tracker: Tracker, run: Run) -> bool:
    """Whether a run keeps the bytes of a model, to which other runs may be linked."""
    with translate_errors(tracker.home, tracker.address):
        return bool(_models_of(tracker, run))


def artifact_bytes(tracker: Tracker, run: Run) -> int:
    """Size of the artifacts that `discard` removes on this machine: of the run and of the models that it made."""
    if not is_ours(tracker, run):
        return 0
    with translate_errors(tracker.home, tracker.address):
        uris = [run.info.artifact_uri, *(model.artifact_location for model in _models_of(tracker, run))]
    return sum(folder_bytes(place) for place in map(_local, uris) if place)


def _models_of(tracker: Tracker, run: Run) -> list[LoggedModel]:
    return list(tracker.client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"))


def is_ours(tracker: Tracker, run: Run) -> bool:
    """Whether a run can be deleted for good: not on a server, nor with artifacts in another home, of which this one may be a copy."""
    place = _local(run.info.artifact_uri)
    return not is_server(tracker.address) and (place is None or place.resolve().is_relative_to(tracker.home.mlflow.resolve()))


def discard(tracker: Tracker, run: Run) -> None:
    """Delete a run, its models and their versions: for good, with all artifacts, if it is ours; else mark them as deleted for `mlflow gc`.

    Raises:
        RecordUnavailable: MLflow does not answer.
    """
    client, run_id = tracker.client, run.info.run_id
    with translate_errors(tracker.home, tracker.address):
        if run.info.lifecycle_stage != "deleted":
            client.delete_run(run_id)
        # As `mlflow gc`; the command itself would also remove other people's runs from MLflow's trash.
        ours, store = is_ours(tracker, run), cast(Any, client._tracking_client.store)
        if ours:
            for version in all_pages(lambda **page: client.search_model_versions(f"run_id = '{run_id}'", **page)):
                client.delete_model_version(version.name, str(version.version))  # without its bytes it is of no use
        for model in _models_of(tracker, run):
            if ours:
                _remove(model.artifact_location)
            client.delete_logged_model(model.model_id)
            if ours:
                store._hard_delete_logged_model(model.model_id)
        if ours:
            _remove(run.info.artifact_uri)
            store._hard_delete_run(run_id)


def folder_bytes(folder: Path) -> int:
    """Bytes of the files that a folder holds."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def _remove(uri: str | None) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    place = _local(uri)
    if uri is None:
        return
    if place is None:
        get_artifact_repository(uri).delete_artifacts()
        return
    shutil.rmtree(place, ignore_errors=True)
    if place.parent.is_dir() and not any(place.parent.iterdir()):  # MLflow leaves the folder around it
        place.parent.rmdir()


def _local(uri: str | None) -> Path | None:
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    return Path(local_file_uri_to_path(uri)) if uri and is_local_uri(uri) else None


def _run_of(tracker: Tracker, version: ModelVersion) -> str | None:
    """The run that a version comes from: as it says, or as its model or its source does."""
    if version.run_id:
        return version.run_id
    source = version.source or ""
    model_id = version.model_id or (source.removeprefix("models:/") if source.startswith("models:/m-") else None)
    if model_id:
        model = or_none(lambda: tracker.client.get_logged_model(model_id))
        return model.source_run_id if model else None
    return source.removeprefix("runs:/").partition("/")[0] if source.startswith("runs:/") else None


def _weights(tracker: Tracker, version: ModelVersion) -> str | None:
    """Hash of a version's weights; None for a model that Ladder did not record, or whose run is deleted."""
    run_id = _run_of(tracker, version)
    run = or_none(lambda: tracker.client.get_run(run_id)) if run_id else None
    return run.data.tags.get("ladder.weights_sha256") if run else None


def or_none(ask: Callable[[], Any]) -> Any:
    """The answer to a query by id; None where MLflow has no such id."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def all_pages(search: Callable[..., Any]) -> list[Any]:
    """All pages of a search."""
    found, token = [], None
    while True:
        page = search(max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found
