"""Versions of a ladder's model in MLflow's registry: register, list, find.

A registered model bears its ladder's name. A version is made once for each hash of weights, and names in its tags the run, the stage
and the result in the store that it is; its bytes in MLflow are those of the stage's run, not a second copy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from conf.errors import UserError
from conf.home import Home, disk_errors
from conf.loading.introspect import suggest
from models.embeddings.sentence_folder import model_sha256
from tasks.records.run import RunRecord, StageRecord, stage_record
from tasks.runtime.runs.run_registry import full_record, list_runs
from tasks.store.cached import find_stored
from tasks.store.store import Store
from tasks.tracking.client import RecordRefused
from tasks.tracking.descriptions import ACCURACY, BITS, describe_model
from tasks.tracking.null import NullTracker
from tasks.tracking.tracker import Tracker
from tasks.tracking.versions import CHALLENGER, CHAMPION, ListedVersion, create_version, list_names, list_versions, move_alias

__all__ = ["ListedVersion", "Version", "find_version", "list_names", "list_versions", "open_version", "register", "registry_lock"]

REFERENCE = re.compile(r"(?:models:/)?(?P<name>[^/@:]+)(?:@(?P<alias>[^/@:]+)|/(?P<version>[0-9]+))")
ALLOWED = "NAME@ALIAS, NAME/VERSION, RUN or RUN:STAGE"


@dataclass(frozen=True)
class Version:
    """A model that can be compared, served and promoted.

    Attributes:
        name: The registered model, which is the ladder's name.
        version: Its number; None for the model of a run that is not registered.
        aliases: Its aliases, such as `champion`.
        run: Ladder run that made it, or reused it first.
        stage: Name of the model in its run.
        fingerprint: Its identity, by which the store finds it.
        weights_sha256: Hash of its weights; those in `folder` have it.
        folder: Hugging Face folder: the store's, or MLflow's copy where the store was cleaned.
        workload: `causal-lm`, `sequence-classification` or `image-classification`.
        tags: All tags of the version in MLflow.
        created: Time of its registration, in seconds since 1970; None: not registered.
    """

    name: str
    version: str | None
    aliases: tuple[str, ...]
    run: str
    stage: str
    fingerprint: str
    weights_sha256: str
    folder: Path
    workload: str
    tags: Mapping[str, str]
    created: float | None = None

    @property
    def label(self) -> str:
        """`NAME/VERSION`, or `RUN:STAGE` where it is not registered."""
        return f"{self.name}/{self.version}" if self.version else f"{self.run}:{self.stage}"


def register(
    tracker: Tracker, home: Home, record: RunRecord, model: StageRecord, *, description: str = "", challenger: bool = True
) -> ListedVersion:
    """Register a recorded model of a run as a version of the ladder's model, unless these weights are one already.

    Args:
        tracker: The record in MLflow.
        home: Home of the run, which holds the lock.
        record: The run.
        model: The model, recorded in MLflow (`mlflow_run_id`).
        description: Text of the version's page; none: how it was made, and how good it is.
        challenger: Whether a new version gets the alias `challenger`.

    Raises:
        RecordRefused: MLflow has not recorded the model.
        RecordUnavailable: MLflow does not answer.
    """
    name = record.ladder
    with registry_lock(home, name):
        known = list_versions(tracker, name)
        if same := [entry for entry in known if entry.tags.get("ladder.weights_sha256") == model.weights_sha256]:
            return same[-1]  # the oldest
        about = f"Students of the ladder {name}; the alias `{CHAMPION}` is on the one to serve."
        lineage = record.models[: record.models.index(model)]
        text = description or describe_model(model, lineage, record.mlflow_experiment_id or "0")
        made = create_version(tracker, name, model.mlflow_run_id, _tags(known, record, model), text, about) if model.mlflow_run_id else None
        if made is None:
            raise RecordRefused(f"MLflow has no record of {record.run}:{model.name}; run its ladder again")
        if challenger:
            move_alias(tracker, name, CHALLENGER, made.version)
        return replace(made, aliases=(CHALLENGER,)) if challenger else made


def _tags(known: Sequence[ListedVersion], record: RunRecord, model: StageRecord) -> dict[str, str]:
    """Tags of a new version: its place in the store, its figures, and what it was made from; `known` are the versions before it."""
    numbers = {entry.tags.get("ladder.fingerprint"): entry.version for entry in known}
    teachers = [each for name in model.teachers for each in record.models if each.name == name]
    tags = {
        "ladder.run": record.run,
        "ladder.stage": model.name,
        "ladder.fingerprint": model.fingerprint,
        "ladder.weights_sha256": model.weights_sha256,
        "ladder.workload": record.workload,
        "ladder.settings": record.settings_hash,
        "ladder.gate": model.gate or "none",
        "ladder.parameters": str(model.parameters),
        "ladder.teachers": ",".join(model.teachers),
        "ladder.teacher_fingerprints": ",".join(model.teacher_fingerprints),
        "ladder.teacher_runs": ",".join(each.mlflow_run_id or "none" for each in teachers),
        "ladder.teacher_versions": ",".join(numbers.get(each.fingerprint) or "none" for each in teachers),
    }
    figures = {key: f"{model.metrics[key]:.6g}" for key in (BITS, ACCURACY) if key in model.metrics}
    metric = next(iter(figures), None)
    if metric is not None:
        tags |= {"ladder.metric": metric, "ladder.quality": figures[metric]}
    if model.bench is not None:
        tags["ladder.mib"] = f"{model.bench.file_bytes / 2**20:.6g}"
        if case := model.bench.case(1):
            tags |= {"ladder.latency_ms": f"{1000 * case.whole.p50:.6g}", "ladder.requests_per_second": f"{case.requests_per_second:.6g}"}
    if record.data is not None:
        tags |= {"ladder.data": record.data.fingerprint, "ladder.data_hash": record.data.content_hash}
    return {key: value for key, value in tags.items() if value}


def registry_lock(home: Home, name: str) -> FileLock:
    """Lock of a ladder's model in this home: held while versions are made or aliases moved, released by the kernel if the holder dies."""
    with disk_errors(home):
        home.locks.mkdir(parents=True, exist_ok=True)
    return FileLock(home.locks / f"registry-{name}.lock", is_singleton=True)


def find_version(tracker: Tracker | NullTracker, home: Home, text: str) -> Version:
    """A model by its version or alias in the registry, or by its run.

    Args:
        tracker: The record in MLflow; a run's model needs none.
        home: Home whose store is searched for the bytes.
        text: `NAME@ALIAS`, `NAME/VERSION`, `RUN` (its last student), `RUN:STAGE`, or `NAME` for its champion.

    Raises:
        UserError: There is no such version or run, MLflow is off, or the bytes are neither in the store nor in MLflow.
        RecordUnavailable: MLflow does not answer.
    """
    reference = REFERENCE.fullmatch(text)
    if reference is None:
        run, _, stage = text.partition(":")
        short = next((record for record in list_runs(home) if record.run == run), None)
        record = full_record(home, short.run) if short else None
        if record is not None:
            return _of_run(tracker, home, record, stage)
        if stage or isinstance(tracker, NullTracker) or run not in list_names(tracker):
            raise _unknown(tracker, home, text)
        return find_version(tracker, home, f"{run}@{CHAMPION}")
    if isinstance(tracker, NullTracker):
        raise UserError.about("MODEL", text, f"RUN or RUN:STAGE, as MLflow is off ({tracker.reason})", "Turn MLflow on for names.")
    name, alias = reference["name"], reference["alias"]
    entries = list_versions(tracker, name)
    wanted = [entry for entry in entries if (alias in entry.aliases if alias else entry.version == reference["version"])]
    if not wanted:
        raise _missing(tracker, home, text, name, entries)
    return open_version(tracker, home, wanted[0])


def open_version(tracker: Tracker, home: Home, entry: ListedVersion) -> Version:
    """A listed version with its bytes, whose hash is compared with the recorded one.

    Raises:
        UserError: It is not Ladder's, not ready, or its bytes are gone or differ.
    """
    tags, label = entry.tags, f"{entry.name}/{entry.version}"
    missing = [key for key in ("run", "stage", "fingerprint", "weights_sha256", "workload") if f"ladder.{key}" not in tags]
    if missing or not entry.ready:
        remedy = f"It lacks the tags {', '.join(f'ladder.{key}' for key in missing)}." if missing else "MLflow has not finished it."
        raise UserError.about("MODEL", label, "a version that Ladder has registered", remedy)
    folder = _bytes(tracker, home, label, tags["ladder.fingerprint"], tags["ladder.weights_sha256"])
    return Version(
        entry.name,
        entry.version,
        entry.aliases,
        tags["ladder.run"],
        tags["ladder.stage"],
        tags["ladder.fingerprint"],
        tags["ladder.weights_sha256"],
        folder,
        tags["ladder.workload"],
        tags,
        entry.created,
    )


def _of_run(tracker: Tracker | NullTracker, home: Home, record: RunRecord, stage: str) -> Version:
    """A model of a run: its version where it is registered, else the model itself."""
    students = {model.name: model for model in record.models}
    model = students.get(stage) if stage else (record.stages[-1] if record.stages else None)
    if model is None:
        allowed = f"{record.run}:STAGE with one of {', '.join(students) or 'its stages, of which none is finished'}"
        raise UserError.about("RUN", f"{record.run}:{stage}" if stage else record.run, allowed, suggest(stage, list(students)))
    entries = list_versions(tracker, record.ladder) if isinstance(tracker, Tracker) else []
    entry = next((each for each in entries if each.tags.get("ladder.weights_sha256") == model.weights_sha256), None)
    if entry is not None and isinstance(tracker, Tracker):
        return open_version(tracker, home, entry)
    folder = _stored(home, model.fingerprint)
    if folder is None:
        raise _gone(f"{record.run}:{model.name}")
    tags = {"ladder.run": record.run, "ladder.stage": model.name, "ladder.gate": model.gate or "none"}
    return Version(record.ladder, None, (), record.run, model.name, model.fingerprint, model.weights_sha256, folder, record.workload, tags)


def _bytes(tracker: Tracker, home: Home, label: str, fingerprint: str, expected: str) -> Path:
    """The folder of a version: the store's, which verifies it, or MLflow's copy if its weights have the recorded hash."""
    folder = _stored(home, fingerprint)
    if folder is not None and stage_record(folder).weights_sha256 == expected:
        return folder
    try:
        folder = tracker.resolve_model(f"models:/{label}")
    except UserError:
        raise _gone(label) from None
    if model_sha256(folder) != expected:
        raise UserError.about("MODEL", label, "a version whose bytes are as they were registered", f"The weights in {folder} have changed.")
    return folder


def _stored(home: Home, fingerprint: str) -> Path | None:
    for kind in ("stage", "teacher"):
        found = find_stored(Store(home), kind, fingerprint, stage_record)
        if found is not None:
            return found.folder
    return None


def _gone(label: str) -> UserError:
    remedy = "Run its ladder again, or choose another version: `ladder models` lists them."
    return UserError.about("MODEL", label, "a version whose bytes are in the store or in MLflow", remedy)


def _missing(tracker: Tracker, home: Home, text: str, name: str, entries: list[ListedVersion]) -> UserError:
    if not entries:
        return _unknown(tracker, home, text)
    known = [f"{name}/{entry.version}" for entry in entries] + [f"{name}@{alias}" for entry in entries for alias in entry.aliases]
    remedy = f"{suggest(text, known)}`ladder models {name}` lists them; `ladder promote` makes a champion."
    return UserError.about("MODEL", text, f"one of {', '.join(known[:12])}", remedy)


def _unknown(tracker: Tracker | NullTracker, home: Home, text: str) -> UserError:
    names = list_names(tracker) if isinstance(tracker, Tracker) else []
    known = [*names, *(record.run for record in list_runs(home))]
    remedy = f"{suggest(text.split('@')[0].split('/')[0], known)}`ladder models` and `ladder runs` list them."
    return UserError.about("MODEL", text, ALLOWED, remedy)


def unknown_name(name: str, names: Sequence[str]) -> UserError:
    """The error of a registered model that does not exist."""
    return UserError.about("NAME", name, f"one of {', '.join(names) or 'none yet'}", f"{suggest(name, names)}`ladder models` lists them.")
