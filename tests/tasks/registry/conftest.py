"""Small homes whose models are registered in a real MLflow on SQLite."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.home import Home
from tasks.records.run import RunRecord, StageRecord
from tasks.runtime.runs.run_registry import save
from tasks.store.fingerprint import fingerprint
from tasks.store.store import Store
from tasks.tracking.tracker import Tracker, connect
from tests.factories import data_record, model_record, run_record

Ran = Callable[..., RunRecord]


@pytest.fixture
def home(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = Home(tmp_path / "home")
    made.mlflow.mkdir(parents=True)
    shutil.copy(empty_database, made.mlflow / "mlflow.db")
    return made


@pytest.fixture
def tracker(home: Home) -> Tracker:
    return connect(home)


def stored(home: Home, name: str, weights: bytes) -> StageRecord:
    """A model in the store with these bytes as its weights."""
    import hashlib

    identity = {"kind": "stage", "name": name, "weights": weights.hex()}
    made = fingerprint(identity)
    digest = hashlib.sha256(weights).hexdigest()
    record = model_record(name, fingerprint=made, weights_sha256=digest, gate="passed", teachers=("teacher",))

    def write(folder: Path) -> None:
        (folder / "record.json").write_text(record.model_dump_json())
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(weights)

    found = Store(home).publish("stage", name, identity, made, {"run": "any", "ladder": "tiny"}, write)
    return record.model_copy(update={"folder": str(found.folder)})


@pytest.fixture
def ran(home: Home, tracker: Tracker) -> Ran:
    """Makes a run of the ladder `tiny`, recorded in MLflow, whose last student has the weights that are given."""

    def make(run: str, weights: bytes, *, teacher: bool = True, **changes: object) -> RunRecord:
        parent = tracker.open_ladder(run, "tiny", "h", "a: 1", params={}, environment={})
        models = []
        for known in (stored(home, "teacher", b"teacher"), stored(home, "small", weights)):
            if known.name == "teacher" and not teacher:  # which costs time
                models.append(known)
                continue
            child = tracker.open_stage(parent, known.name, known.fingerprint, settings={})
            tracker.finish_stage(child.run_id, known, workload="sequence-classification", folder=Path(known.folder))
            models.append(known.model_copy(update={"mlflow_run_id": child.run_id}))
        tracker.close(parent, "FINISHED")
        record = run_record(run, *models, workload="sequence-classification", data=data_record(), mlflow_run_id=parent, **changes)
        save(home, record)
        return record

    return make
