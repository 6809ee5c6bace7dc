"""Results in an object store: another home finds them, whole or not at all, and none is published twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import RemoteStoreError
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.store.fingerprint import fingerprint
from tasks.store.manifest import SHOWN, verify
from tasks.store.remote import results
from tests.tasks.store.remote.conftest import Shared
from tests.tasks.store.results import FINGERPRINT, IDENTITY, MADE, WEIGHTS, fill, publish

pytestmark = pytest.mark.processes
Objects = Callable[[], dict[str, bytes]]
PLACE = f"stage/{FINGERPRINT[:SHOWN]}"
ENTRY = Entry("stage", "100k", IDENTITY)


def test_a_result_is_found_by_another_home_in_the_same_bytes(shared: Shared, objects: Objects) -> None:
    made = publish(shared.store("a"))
    names = set(objects())
    attempt = next(name.split("/")[2] for name in names if name.endswith("model.safetensors"))
    assert names == {f"{PLACE}/{attempt}/model.safetensors", f"{PLACE}/{attempt}/tokenizer/vocab.json", f"{PLACE}/manifest-1.json"}
    found = shared.store("b").find("stage", FINGERPRINT)
    assert found
    assert found.manifest == made.manifest
    assert found.folder.name == made.folder.name
    assert verify(found.folder, FINGERPRINT) == (None, made.manifest)
    assert (found.folder / "model.safetensors").read_bytes() == WEIGHTS
    assert shared.said == []


def test_what_the_object_store_lacks_is_not_found(shared: Shared) -> None:
    publish(shared.store("a"))
    assert shared.store("b").find("teacher", FINGERPRINT) is None
    assert shared.store("b").find("stage", fingerprint({"other": 1})) is None


def test_a_result_from_before_is_uploaded_by_the_next_run_that_finds_it(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.delenv("LADDER_STORE")
        publish(shared.store("a"))
    assert shared.store("b").find("stage", FINGERPRINT) is None
    assert shared.store("a").find("stage", FINGERPRINT)
    assert shared.store("b").find("stage", FINGERPRINT)


def test_a_result_that_was_made_apart_stays_in_use_and_is_not_uploaded(
    shared: Shared, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.delenv("LADDER_STORE")
        mine = publish(shared.store("a"), write=lambda folder: (folder / "mine").write_bytes(b"mine") and None)
    publish(shared.store("b"))
    before = objects()
    for _ in range(2):
        found = shared.store("a").find("stage", FINGERPRINT)
        assert found
        assert found.manifest == mine.manifest
    assert objects() == before
    assert len(shared.said) == 1
    assert f"{mine.folder} stays in use, though s3://" in shared.said[0]


def test_a_result_that_is_here_and_there_needs_no_request(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(shared.store("a"))
    shared.store("b").find("stage", FINGERPRINT)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert shared.store("a").find("stage", FINGERPRINT)
    assert shared.store("b").find("stage", FINGERPRINT)
    assert shared.said == []


def test_who_publishes_second_takes_the_result_of_the_first(shared: Shared, objects: Objects) -> None:
    first, second = shared.store("a"), shared.store("b")
    assert second.find("stage", FINGERPRINT) is None  # it begins to compute
    publish(first)
    mine = second.publish(
        "stage", "100k", IDENTITY, FINGERPRINT, {**MADE, "run": "run-2"}, lambda folder: (folder / "other").write_bytes(b"2")
    )
    assert (mine.adopted, mine.manifest["run"]) == (True, "run-1")
    assert (mine.folder / "model.safetensors").read_bytes() == WEIGHTS
    assert sum(name.endswith("other") for name in objects()) == 0  # its own attempt is gone
    assert [path.name for path in (second.home.store / "set-aside").glob("*/other")] == ["other"]  # and kept here
    assert shared.said == [f"100k-{FINGERPRINT[:SHOWN]}: run-1 has published it first; its result is used, ours is set aside"]


def test_the_run_that_lost_says_that_it_reused(shared: Shared) -> None:
    def compute() -> Write:
        publish(shared.store("a"))
        return lambda folder: (folder / "late").write_bytes(b"late")

    stored = find_or_compute(shared.store("b"), ENTRY, {"run": "late", "ladder": "tiny"}, compute)
    assert (stored.reused, stored.manifest["run"]) == (True, "run-1")


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "manifest"])
def test_a_damaged_result_is_named_and_computed_again(shared: Shared, objects: Objects, damage: str) -> None:
    publish(shared.store("a"))
    bucket = shared.bucket
    name = next(name for name in objects() if name.endswith("manifest-1.json" if damage == "manifest" else "model.safetensors"))
    if damage == "gone":
        bucket.remove(name)
    else:
        bucket.write(name, {"changed": b"x" + WEIGHTS[1:], "cut": WEIGHTS[:-1], "manifest": b"{"}[damage])
    store = shared.store("b")
    assert store.find("stage", FINGERPRINT) is None
    assert len(shared.said) == 1
    assert shared.said[0].startswith(f"damaged result {PLACE} in s3://")
    assert not list(store.home.store.rglob("model.safetensors"))
    publish(store)
    assert f"{PLACE}/manifest-2.json" in objects()  # the damaged one stays as it is
    found = shared.store("c").find("stage", FINGERPRINT)
    assert found
    assert verify(found.folder, FINGERPRINT)[0] is None


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "a/../../b", "manifest.json"])
def test_a_manifest_that_names_other_places_is_refused(shared: Shared, objects: Objects, name: str) -> None:
    made = publish(shared.store("a"))
    files = {name: made.manifest["files"]["model.safetensors"]}
    evil = {**made.manifest, "files": files, "attempt": "0" * 16}
    shared.bucket.write(f"{PLACE}/manifest-2.json", json.dumps(evil).encode())
    assert shared.store("b").find("stage", FINGERPRINT) is None
    assert "it names places outside its folder" in shared.said[0]


def test_fresh_replaces_the_result_for_all(shared: Shared) -> None:
    publish(shared.store("a"))

    def compute() -> Write:
        return lambda folder: (folder / "anew").write_bytes(b"anew")

    find_or_compute(shared.store("a"), ENTRY, {"run": "run-2", "ladder": "tiny"}, compute, fresh=True)
    found = shared.store("b").find("stage", FINGERPRINT)
    assert found
    assert (found.folder / "anew").is_file()


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_other_protocols(shared: Shared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, protocol: str) -> None:
    monkeypatch.setenv("LADDER_STORE", f"file://{tmp_path}/remote" if protocol == "file" else "memory://remote")
    publish(shared.store("a"))
    late = shared.store("b")
    assert late.find("stage", FINGERPRINT)
    assert late.remote
    assert not late.remote.bucket.create(f"{PLACE}/manifest-1.json", b"{}")


def test_a_result_survives_that_cannot_be_uploaded(shared: Shared, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as away:
        store = shared.store("a")
        store.find("stage", FINGERPRINT)
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        assert not publish(shared.store("a")).adopted
        assert len(shared.said) == 1
        assert "The next run that finds a result here uploads it." in shared.said[0]
        with pytest.raises(RemoteStoreError, match="did not answer as it should, 3 times"):
            shared.store("b").find("stage", FINGERPRINT)
    results._rests_until.clear()  # in the process of the next run
    shared.store("a").find("stage", FINGERPRINT)
    assert shared.store("b").find("stage", FINGERPRINT)


def test_a_failed_download_leaves_nothing(shared: Shared) -> None:
    publish(shared.store("a"), write=lambda folder: fill(folder))
    store = shared.store("b")

    def refuse(folder: Path) -> None:
        raise ValueError("not what it should be")

    assert store.find("stage", FINGERPRINT, refuse) is None
    assert "its records are not what this version of Ladder reads" in shared.said[0]
    assert list((store.home.store / "writing").iterdir()) == []
