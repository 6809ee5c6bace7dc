"""Small homes for the tests of cleaning: results and runs of given ages."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conf.home import Home
from tasks.lifecycle.clean import Cleaned
from tasks.records.run import DataRecord, RunRecord, StageRecord
from tasks.runtime.runs.run_registry import save
from tasks.store.fingerprint import fingerprint
from tasks.store.store import Found, Store
from tests.factories import data_record, model_record, run_record

DAY = 86400.0
AGE = 30 * DAY
OLD = time.time() - 40 * DAY
NEW = time.time() - 5 * DAY


def publish(home: Home, kind: str, name: str, identity: dict[str, Any], run: str, moment: float = OLD, record: str = "{}") -> Found:
    def write(folder: Path) -> None:
        (folder / "record.json").write_text(record)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(name.encode() * 100)

    found = Store(home).publish(kind, name, identity, fingerprint(identity), {"run": run, "ladder": "tiny"}, write)
    os.utime(found.folder, (moment, moment))
    return found


def model(home: Home, name: str, run: str, teacher: StageRecord | None = None, moment: float = OLD, seed: int = 0) -> StageRecord:
    """A model in the store, and its evaluation."""
    kind = "stage" if teacher else "teacher"
    identity = {"kind": kind, "name": name, "seed": seed, "teachers": [teacher.fingerprint] if teacher else []}
    key = fingerprint(identity)
    teachers = {"teachers": (teacher.name,), "teacher_fingerprints": (teacher.fingerprint,)} if teacher else {}
    record = model_record(name, fingerprint=key, weights_sha256=fingerprint({"weights": key}), steps=5, **teachers)
    publish(home, kind, name, identity, run, moment, record.model_dump_json())
    publish(home, "evaluation", name, {"kind": "evaluation", "weights": record.weights_sha256}, run, moment)
    publish(home, "decision", name, {"kind": "decision", "weights": record.weights_sha256}, run, moment)
    return record


def ran(home: Home, run: str, models: list[StageRecord], data: DataRecord | None = None, moment: float = OLD, **more: Any) -> RunRecord:
    when = datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
    ended = {"status": "done", "finished": when} | more
    record = run_record(run, *models, started=when, folder=str(home.runs / run), data=data, **ended)
    save(home, record)
    os.utime(home.runs / run / "record.json", (moment, moment))
    return record


def dataset(home: Home, run: str, seed: int = 0, moment: float = OLD) -> DataRecord:
    identity = {"kind": "data", "seed": seed}
    found = publish(home, "data", "digits", identity, run, moment)
    return data_record(fingerprint=fingerprint(identity), folder=str(found.folder))


def names(cleaned: Cleaned) -> set[str]:
    return {f"{piece.kind}/{piece.name.rpartition('-')[0] or piece.name}" for piece in cleaned.freed}


def results(home: Home) -> set[Path]:
    return {path for kind in ("data", "teacher", "stage", "evaluation", "decision") for path in (home.store / kind).glob("*")}


def total(home: Home) -> int:
    return sum(path.stat().st_size for part in (home.store, home.runs) for path in part.rglob("*") if path.is_file())
