"""Log models in MLflow, once each, and resolve them to local folders.

Functions of an explicit client. The bytes are the artifacts of the logged model, which is named `student` (or `teacher`), so that MLflow
finds it by `models:/<model id>`, by `runs:/<run id>/student` and by a registered version. Up to version 0.3 they were artifacts of the
run, and the logged model named them in its tag `ladder.source`: `resolve` still follows it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conf.errors import TransientError, UserError
from conf.secrets import masked
from tasks.records.run import TEACHER, StageRecord
from tasks.tracking.client import first_line, is_permanent, is_server
from tasks.tracking.packaging import flavour
from tasks.tracking.packaging.package import About, write_package
from tasks.tracking.runs import is_equal

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

SOURCE_TAG = "ladder.source"  # of models that version 0.3 logged


def model_of(client: MlflowClient, run_id: str | None) -> str | None:
    """Id of the model that a run made or reused; none where this record has no such run or the run no model."""
    run = _run(client, run_id)
    return _models(run)[-1] if run and _models(run) else None


def find_recorded_model(client: MlflowClient, run_id: str, fingerprint: str, original_run_id: str | None) -> str | None:
    """Id of a model that was recorded whole by the run that made it, or else by another one of the experiment; none where there is none."""
    original = _run(client, original_run_id)
    if original is None or original.info.lifecycle_stage == "deleted" or original.info.status != "FINISHED" or not _models(original):
        experiment_id = client.get_run(run_id).info.experiment_id
        query = f"tags.`ladder.fingerprint` = '{fingerprint}' and attributes.status = 'FINISHED'"
        original = next(iter(client.search_runs([experiment_id], query, max_results=1)), None)
    return _models(original)[-1] if original and _models(original) else None


def recorded_run(
    client: MlflowClient, experiment_id: str, fingerprint: str, original_run_id: str | None, figures: Mapping[str, float]
) -> Run | None:
    """The run that recorded a reused model whole, with these figures; None where there is none, or where it has other figures."""
    found = _run(client, original_run_id)
    if found is None or found.info.lifecycle_stage == "deleted" or found.info.status != "FINISHED":
        query = f"tags.`ladder.fingerprint` = '{fingerprint}' and attributes.status = 'FINISHED'"
        found = next(iter(client.search_runs([experiment_id], query, max_results=1)), None)
    if found is None or not _models(found):
        return None
    logged = found.data.metrics
    return found if all(is_equal(logged.get(key), value) for key, value in figures.items()) else None


def link_teachers(client: MlflowClient, run_id: str, teacher_run_ids: Sequence[str]) -> None:
    """Make the teachers' models the inputs of a run; those that are so already are left."""
    from mlflow.entities import LoggedModelInput

    inputs = client.get_run(run_id).inputs
    linked = {model.model_id for model in inputs.model_inputs} if inputs else set()
    models = [model_of(client, teacher) for teacher in teacher_run_ids]
    new = [LoggedModelInput(model_id) for model_id in models if model_id and model_id not in linked]
    if new:
        client.log_inputs(run_id, models=new)


def link_output(client: MlflowClient, run_id: str, model_id: str, step: int) -> None:
    """Make a model the output of a run, once."""
    from mlflow.entities import LoggedModelOutput

    run = _run(client, run_id)
    if run is None or model_id not in _models(run):
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])


def link_version(client: MlflowClient, model_id: str, name: str, version: str) -> None:
    """Name a registered version on the page of its model."""
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    named = [*json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]")), {"name": name, "version": version}]
    client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(named)})


def _run(client: MlflowClient, run_id: str | None) -> Run | None:
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _models(run: Run) -> list[str]:
    return [output.model_id for output in run.outputs.model_outputs] if run.outputs else []


def log_model(
    client: MlflowClient,
    run_id: str,
    record: StageRecord,
    workload: str,
    folder: Path | None,
    facts: Mapping[str, str] | None = None,
    add_parts: Callable[[Path], None] | None = None,
) -> str:
    """Keep a model and return its id; a whole one that the run has already is returned as it is.

    Args:
        client: MLflow's client.
        run_id: Run that made it.
        record: The model's record.
        workload: `causal-lm`, `sequence-classification` or `image-classification`.
        folder: Its Hugging Face folder; none: an entry without bytes.
        facts: More about it, such as `license` and `base_model`: metadata of the model and, as `ladder.<key>`, its tags.
        add_parts: Writes a tokenizer or an image processor that `folder` lacks into an empty folder.
    """
    run, name, facts = client.get_run(run_id), artifact_name(record.name), facts or {}
    experiment_id = run.info.experiment_id
    model: LoggedModel | None = None
    for found in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        if str(found.status) == "READY":
            return found.model_id
        if found.name == name and SOURCE_TAG not in found.tags:
            model = found  # an interrupted upload, which goes on in the same place
        else:
            client.delete_logged_model(found.model_id)
    if model is None:
        tags = {"ladder.stage": record.name, "ladder.fingerprint": record.fingerprint, "ladder.weights_sha256": record.weights_sha256}
        tags |= {f"ladder.{key}": value for key, value in facts.items()}
        tags |= {key: run.data.tags[key] for key in ("mlflow.user", "mlflow.source.name") if key in run.data.tags}
        params = {"stage": record.name, "parameters": str(record.parameters), "steps": str(record.steps)}
        params |= {"teachers": ",".join(record.teachers) or "none"}
        model = client.create_logged_model(experiment_id, name, run_id, tags, params, model_type=workload)
    if folder:
        for file in flavour.model_files(folder):
            client.log_model_artifact(model.model_id, str(file))
        with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as parts:
            if add_parts:
                add_parts(Path(parts))
            example = next((sample.prompt for sample in record.samples if sample.prompt.strip()), None) if workload == "causal-lm" else None
            about = About(workload, run_id, model.model_id, model.artifact_location, example, facts)
            write_package(folder, Path(parts), about, Path(scratch))
            client.log_model_artifacts(model.model_id, scratch)
    client.finalize_logged_model(model.model_id, "READY")
    return model.model_id


def artifact_name(stage: str) -> str:
    """Name of a stage's logged model, hence the end of its address `runs:/<run id>/student`."""
    return TEACHER if stage == TEACHER else "student"


def resolve(client: MlflowClient, uri: str, tracking_uri: str, downloads: Path) -> Path:
    """Local Hugging Face folder of a recorded model.

    Args:
        client: MLflow's client.
        uri: `models:/<name>/<version>`, `models:/<name>@<alias>`, `models:/<model id>` or `runs:/<run id>/<path>`.
        tracking_uri: Where the client looks.
        downloads: Folder for artifacts that lie elsewhere. Each place is fetched once: recorded models do not change.

    Raises:
        UserError: There is no such model, or no config.json in it or one folder below.
        TransientError: MLflow's server or its object store did not answer.
    """
    from mlflow.exceptions import MlflowException

    uri_shown = masked(tracking_uri)
    allowed = "models:/<name>/<version>, models:/<name>@<alias>, models:/<model id> or runs:/<run id>/<path>, with config.json"
    try:
        folder = _fetch(_storage(client, uri), tracking_uri, downloads)
        below = sorted(path for path in folder.iterdir() if path.is_dir())
    except (MlflowException, OSError) as error:
        if is_server(tracking_uri) and not is_permanent(error) and not isinstance(error, FileNotFoundError):
            raise TransientError(f"teacher.path: {uri} could not be fetched from MLflow at {uri_shown}: {first_line(error)}.") from None
        raise UserError.about("teacher.path", uri, allowed, f"MLflow at {uri_shown} said: {first_line(error)}") from None
    for place in (folder, *below):
        if (place / "config.json").is_file():
            return place
    raise UserError.about("teacher.path", uri, allowed, f"There is none in {folder}, nor one folder below.")


def location(client: MlflowClient, model_id: str) -> tuple[str, str]:
    """Location of the bytes of a logged model, and the model's own place for artifacts."""
    return _storage(client, f"models:/{model_id}"), client.get_logged_model(model_id).artifact_location


def _storage(client: MlflowClient, uri: str) -> str:
    """Location of the artifacts behind a `models:/` or `runs:/` URI."""
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    if uri.startswith("runs:/"):
        return _run_storage(client, *uri.removeprefix("runs:/").strip("/").partition("/")[::2])
    if not uri.startswith("models:/"):
        return uri
    found = get_model_name_and_version(client, uri)
    if len(found) == 1:
        model = client.get_logged_model(found[0])
        return _storage(client, model.tags[SOURCE_TAG]) if SOURCE_TAG in model.tags else model.artifact_location
    name, version = str(found[0]), str(found[1])
    source = client.get_model_version(name, version).source or ""
    return _storage(client, source if source.startswith(("models:/", "runs:/")) else client.get_model_version_download_uri(name, version))


def _run_storage(client: MlflowClient, run_id: str, path: str) -> str:
    """Location of a run's artifact: with the run, in a logged model of that name, or with the run whose model this one reused."""
    run = client.get_run(run_id)
    top, _, rest = path.partition("/")
    for output in run.outputs.model_outputs if run.outputs else []:
        model = client.get_logged_model(output.model_id)
        if model.name == top and SOURCE_TAG not in model.tags:
            return "/".join(filter(None, (model.artifact_location, rest)))
        if model.tags.get(SOURCE_TAG, "").endswith(f"/{top}") and model.source_run_id != run_id:
            return _storage(client, "/".join(filter(None, (model.tags[SOURCE_TAG], rest))))
    return "/".join(filter(None, (run.info.artifact_uri, path)))


def _fetch(storage: str, tracking_uri: str, downloads: Path) -> Path:
    from mlflow.artifacts import download_artifacts
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    if is_local_uri(storage):
        return Path(local_file_uri_to_path(storage)).resolve(strict=True)
    target = downloads / hashlib.sha256(f"{tracking_uri} {storage}".encode()).hexdigest()[:16]
    if not target.is_dir():
        downloads.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=downloads) as scratch:
            got = Path(download_artifacts(artifact_uri=storage, tracking_uri=tracking_uri, dst_path=str(Path(scratch) / "got")))
            if not target.is_dir():
                got.rename(target)  # a whole folder, which `write_atomic` does not replace
    return target
