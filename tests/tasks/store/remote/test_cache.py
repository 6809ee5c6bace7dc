"""The size limit of a home removes what the object store holds and nobody uses, and nothing else."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from filelock import FileLock

from tasks.store.fingerprint import fingerprint
from tasks.store.manifest import SHOWN
from tasks.store.remote.cache import folder_bytes, trim
from tasks.store.store import Store
from tests.tasks.store.remote.conftest import Shared
from tests.tasks.store.results import publish

pytestmark = pytest.mark.processes
HOUR = 3600.0


@pytest.fixture
def store(shared: Shared) -> Store:
    """Four results, which were used 5, 4, 3 and 2 hours ago."""
    made = shared.store("a")
    for seed in range(4):
        used(publish(made, identity={"seed": seed}).folder, 5 - seed)
    return made


def used(folder: Path, hours: float) -> None:
    moment = time.time() - hours * HOUR
    os.utime(folder, (moment, moment))


def seeds(store: Store) -> list[int]:
    return sorted(json.loads(path.read_text())["identity"]["seed"] for path in store.home.store.glob("stage/*/manifest.json"))


def cut(store: Store, results: float) -> int:
    assert store.remote
    size = max(folder_bytes(path) for path in (store.home.store / "stage").iterdir())
    return trim(store.home, store.remote, int(results * size))


def test_the_least_recently_used_go_first_and_come_back(store: Store) -> None:
    assert cut(store, 4) == 0
    assert cut(store, 2.5) > 0
    assert seeds(store) == [2, 3]
    assert store.find("stage", fingerprint({"seed": 0}))
    assert seeds(store) == [0, 2, 3]
    assert cut(store, 0) > 0
    assert seeds(store) == [0]  # it was used just now


def test_a_publication_keeps_to_the_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADDER_STORE_CACHE", "10KB")  # one result has 4 KB
    publish(store, identity={"seed": 9})
    assert seeds(store) == [3, 9]


def test_what_a_running_run_may_use_stays(store: Store) -> None:
    run = store.home.runs / "under-way"
    run.mkdir(parents=True)
    (run / "record.json").write_text(json.dumps({"started": datetime.fromtimestamp(time.time() - 3.5 * HOUR, UTC).isoformat()}))
    with FileLock(store.home.locks / "run-under-way.lock"):
        cut(store, 0)
    assert seeds(store) == [2, 3]


def test_what_is_locked_stays(store: Store) -> None:
    with store.lock(fingerprint({"seed": 1})):
        cut(store, 0)
    assert seeds(store) == [1]


def test_what_the_object_store_lacks_or_has_otherwise_stays(store: Store, shared: Shared) -> None:
    short = [fingerprint({"seed": seed})[:SHOWN] for seed in range(4)]
    shared.bucket.remove(f"stage/{short[0]}/manifest-1.json")
    shared.bucket.write(f"stage/{short[1]}/manifest-2.json", b"{}")
    grown = next(store.home.store.glob(f"stage/*-{short[2]}"))
    (grown / "part-1").write_bytes(b"as caches of signals do")
    used(grown, 3)
    cut(store, 0)
    assert seeds(store) == [0, 1, 2]


def test_nothing_goes_while_the_object_store_is_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = Store(store.home)
    assert cut(away, 0) == 0
    assert seeds(store) == [0, 1, 2, 3]
