"""Plans see what the object store holds, fetch its records alone, and go on without it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.store.fingerprint import fingerprint
from tests.tasks.store.remote.conftest import Shared
from tests.tasks.store.results import FINGERPRINT, fill, publish

pytestmark = pytest.mark.processes


def with_record(folder: Path) -> None:
    fill(folder)
    (folder / "record.json").write_text("{}")
    (folder / "large").write_bytes(bytes(2**20 + 1))


def read(folder: Path) -> object:
    return (folder / "record.json").read_text()


def test_a_plan_fetches_the_records_of_a_result_alone(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    made = publish(shared.store("a"), write=with_record)
    store = shared.store("b")
    for _ in range(2):
        found = store.peek("stage", FINGERPRINT, read)
        assert found
        assert found.manifest == made.manifest
        assert read(found.folder) == "{}"
        assert not (found.folder / "large").exists()
    assert not list(store.home.store.glob("stage/*"))
    assert store.peek("teacher", FINGERPRINT, read) is None
    assert shared.said == []


def test_a_plan_that_needs_all_files_gets_those_of_a_small_result_alone(shared: Shared) -> None:
    publish(shared.store("a"), write=with_record)
    assert shared.store("a").peek("stage", FINGERPRINT, read, whole=True)
    assert shared.store("b").peek("stage", FINGERPRINT, read, whole=True) is None
    small = {"seed": 1}
    made = publish(shared.store("a"), identity=small)
    found = shared.store("b").peek("stage", fingerprint(small), whole=True)
    assert found
    assert {path.name for path in found.folder.iterdir()} == {path.name for path in made.folder.iterdir()}


def test_plans_of_a_home_fetch_the_same_records_at_once(shared: Shared) -> None:
    publish(shared.store("a"), write=with_record)
    for round_ in range(5):
        stores = [shared.store(f"b{round_}") for _ in range(6)]
        with ThreadPoolExecutor(len(stores)) as pool:
            found = list(pool.map(lambda store: store.peek("stage", FINGERPRINT, read), stores))
        assert all(each is not None and read(each.folder) == "{}" for each in found)
        assert len({each.folder for each in found if each}) == 1
        assert [path.name for path in found[0].folder.parent.iterdir()] == [found[0].folder.name] if found[0] else False
    assert shared.said == []


def test_a_plan_goes_on_without_an_object_store_that_is_away(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(shared.store("a"), write=with_record)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store, began = shared.store("b"), time.monotonic()
    assert [store.peek(kind, FINGERPRINT) for kind in ("stage", "teacher", "data")] == [None, None, None]
    assert time.monotonic() - began < 10  # asked once, not five times for each
    assert len(shared.said) == 1
    assert shared.said[0].startswith("planned without the object store: LADDER_STORE: s3://")


def test_data_are_fetched_for_a_plan(shared: Shared) -> None:
    shared.store("a").publish("data", "files", {}, FINGERPRINT, {"run": "r", "ladder": "l"}, with_record)
    store = shared.store("b")
    with store.lock(FINGERPRINT):
        assert shared.store("b").peek("data", FINGERPRINT) is None  # a run prepares them: a plan does not wait for it
    found = store.peek("data", FINGERPRINT)
    assert found
    assert found.folder.parent == store.home.store / "data"
    assert (found.folder / "large").exists()
