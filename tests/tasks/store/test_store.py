"""The store: what is visible is whole, what is damaged is never used, and a dead process holds nothing."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.errors import StoreError
from conf.home import Home
from models.training.checkpoints import Checkpoints
from tasks.store.fingerprint import fingerprint
from tasks.store.store import MANIFEST, SHOWN, Found, Store, verify
from tests.machine import child, kill, read_line, small_disk

IDENTITY = {"kind": "stage", "seed": 1}
FINGERPRINT = fingerprint(IDENTITY)
MADE = {"run": "run-1", "ladder": "tiny"}
WEIGHTS = bytes(range(256)) * 16
ROOT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Home(tmp_path / "home"))


def fill(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text("{}")


def publish(store: Store, name: str = "100k", identity: dict[str, Any] = IDENTITY, write: Callable[[Path], None] = fill) -> Found:
    return store.publish("stage", name, identity, fingerprint(identity), MADE, write)


class TestPublish:
    def test_what_is_published_is_found(self, store: Store) -> None:
        assert store.find("stage", FINGERPRINT) is None
        made = publish(store)
        assert made.folder == store.home.store / "stage" / f"100k-{FINGERPRINT[:SHOWN]}"
        found = store.find("stage", FINGERPRINT)
        assert found == made
        assert found.manifest["identity"] == IDENTITY
        assert (found.manifest["run"], found.manifest["ladder"], found.manifest["name"]) == ("run-1", "tiny", "100k")
        assert set(found.manifest["files"]) == {"model.safetensors", "tokenizer/vocab.json"}
        assert found.manifest["files"]["model.safetensors"]["bytes"] == len(WEIGHTS)

    def test_another_kind_or_fingerprint_is_not_found(self, store: Store) -> None:
        publish(store)
        assert store.find("teacher", FINGERPRINT) is None
        assert store.find("stage", fingerprint({"other": 1})) is None
        same_beginning = FINGERPRINT[:SHOWN] + "0" * (64 - SHOWN)
        assert store.peek("stage", same_beginning) is None

    def test_the_name_is_for_people(self, store: Store) -> None:
        publish(store, "old-name")
        found = store.find("stage", FINGERPRINT)
        assert found
        assert found.folder.name.startswith("old-name-")

    def test_nothing_is_visible_while_it_is_written(self, store: Store) -> None:
        def look(folder: Path) -> None:
            fill(folder)
            assert store.find("stage", FINGERPRINT) is None
            assert list((store.home.store / "stage").iterdir()) == []

        publish(store, write=look)
        assert store.find("stage", FINGERPRINT)

    @pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
    def test_a_failure_leaves_nothing(self, store: Store, error: BaseException) -> None:
        def fail(folder: Path) -> None:
            fill(folder)
            raise error

        with pytest.raises(type(error)):
            publish(store, write=fail)
        assert store.find("stage", FINGERPRINT) is None
        assert [path for path in store.home.store.rglob("*") if path.is_file()] == []

    def test_a_kill_while_it_is_written_leaves_nothing_visible(self, store: Store) -> None:
        code = """
import sys, time
from pathlib import Path
from conf.home import Home
from tasks.store.store import Store
def write(folder):
    (folder / "model.safetensors").write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
Store(Home(Path(sys.argv[1]))).publish("stage", "100k", {"kind": "stage", "seed": 1}, sys.argv[2], {"run": "r", "ladder": "l"}, write)
"""
        with child(code, store.home.root, FINGERPRINT) as process:
            assert read_line(process) == "writing"
            kill(process)
            assert store.find("stage", FINGERPRINT) is None
            assert list((store.home.store / "stage").iterdir()) == []
            publish(store)
            assert store.find("stage", FINGERPRINT)
            assert list((store.home.store / "writing").iterdir()) == []  # what the dead process left is gone

    def test_it_appears_by_a_rename(self, store: Store) -> None:
        seen: list[int] = []

        def look(folder: Path) -> None:
            fill(folder)
            seen.append(folder.stat().st_ino)

        assert publish(store, write=look).folder.stat().st_ino == seen[0]

    def test_whatever_is_visible_after_a_kill_is_whole(self, store: Store) -> None:
        code = """
import sys
from pathlib import Path
from conf.home import Home
from tasks.store.fingerprint import fingerprint
from tasks.store.store import Store
def write(folder):
    for number in range(5):
        (folder / f"part-{number}").write_bytes(bytes(50_000))
store, number = Store(Home(Path(sys.argv[1]))), 0
while True:
    number += 1
    identity = {"number": number}
    store.publish("stage", "many", identity, fingerprint(identity), {"run": "r", "ladder": "l"}, write)
    if number == 1:
        print("published", flush=True)
"""
        with child(code, store.home.root) as process:
            assert read_line(process) == "published"
            time.sleep(0.3 + random.random() / 5)
            kill(process)
            folders = list((store.home.store / "stage").iterdir())
            assert len(folders) > 1
            for folder in folders:
                assert verify(folder, json.loads((folder / MANIFEST).read_text())["fingerprint"])[0] is None

    def test_publishing_again_sets_the_old_one_aside(self, store: Store) -> None:
        publish(store, "old")
        publish(store, "new")
        assert [path.name for path in (store.home.store / "stage").iterdir()] == [f"new-{FINGERPRINT[:SHOWN]}"]
        assert len(list((store.home.store / "set-aside").iterdir())) == 1


def remove(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def truncate(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(WEIGHTS[:-1])


def alter(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"X" + WEIGHTS[1:])


def lose_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def cut_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:40])


def strange_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[]")


def foreign_manifest(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "fingerprint": "0" * 64}))


def entry_of_text(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "files": {"model.safetensors": "x"}}))


def entry_without_hash(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "files": {"model.safetensors": {"bytes": 1}}}))


def manifest_without_run(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["run"]
    (folder / MANIFEST).write_text(json.dumps(manifest))


def foreign_bytes(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"\xff\xfe\x00")


def deep_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[" * 100_000)


DAMAGES = [
    (entry_of_text, "its manifest is no manifest (files.model.safetensors: "),
    (entry_without_hash, "its manifest is no manifest (files.model.safetensors.sha256: "),
    (manifest_without_run, "its manifest is no manifest (run: "),
    (foreign_bytes, "no readable manifest"),
    (deep_manifest, "no readable manifest (it nests too deep to be read"),
    (remove, "model.safetensors is missing"),
    (truncate, "model.safetensors has 4095 bytes, not 4096"),
    (alter, "model.safetensors differs from its recorded hash"),
    (lose_manifest, "no readable manifest"),
    (cut_manifest, "no readable manifest"),
    (strange_manifest, "its manifest is no manifest"),
    (foreign_manifest, "its manifest names another fingerprint"),
]


class TestVerify:
    def test_a_whole_result(self, store: Store) -> None:
        assert verify(publish(store).folder, FINGERPRINT)[0] is None

    @pytest.mark.parametrize(("damage", "fault"), DAMAGES)
    def test_a_damaged_result_is_named_set_aside_and_not_used(self, tmp_path: Path, damage: Callable[[Path], None], fault: str) -> None:
        said: list[str] = []
        store = Store(Home(tmp_path), said.append)
        folder = publish(store).folder
        damage(folder)
        told, _ = verify(folder, FINGERPRINT)
        assert told
        assert told.startswith(fault)
        assert store.find("stage", FINGERPRINT) is None
        assert not folder.exists()
        aside = list((store.home.store / "set-aside").iterdir())
        assert len(aside) == 1  # kept for whoever wants to look
        assert said == [f"damaged result {folder}: {told}; set aside as {aside[0]}, it will be computed again"]
        publish(store)
        assert store.find("stage", FINGERPRINT)

    def test_foreign_files_are_moved_out_and_named_and_the_result_is_used(self, tmp_path: Path) -> None:
        said: list[str] = []
        store = Store(Home(tmp_path), said.append)
        folder = publish(store).folder
        (folder / "tokenizer" / "added_tokens.json").write_text("{}")
        (folder / "link").symlink_to("/nowhere")
        (folder / "README.md").write_text("a model card")
        assert store.find("stage", FINGERPRINT, closed=False)  # of results that grow
        assert said == []
        assert store.find("stage", FINGERPRINT)
        (aside,) = (store.home.store / "set-aside").iterdir()
        assert said == [
            f"{folder} holds files that no run put there: link, tokenizer/added_tokens.json; moved to {aside}, the result is used as it was"
        ]
        assert (aside / "tokenizer" / "added_tokens.json").read_text() == "{}"
        assert not (folder / "link").is_symlink()
        assert (folder / "README.md").is_file()
        said.clear()
        assert store.find("stage", FINGERPRINT)
        assert said == []

    def test_records_that_fit_their_hash_and_not_their_reader_are_damage(self, tmp_path: Path) -> None:
        said: list[str] = []
        store = Store(Home(tmp_path), said.append)
        publish(store)
        assert store.peek("stage", FINGERPRINT, lambda folder: (folder / "record.json").read_text()) is None
        assert store.find("stage", FINGERPRINT, lambda folder: (folder / "tokenizer" / "vocab.json").read_text())
        assert store.find("stage", FINGERPRINT, lambda folder: json.loads("[]")["weights"]) is None
        assert "its records are not what this version of Ladder reads" in said[0]

    def test_peek_looks_at_sizes_and_changes_nothing(self, store: Store) -> None:
        folder = publish(store).folder
        assert store.peek("stage", FINGERPRINT)
        alter(folder)
        assert store.peek("stage", FINGERPRINT)  # only a hash tells, and hashing is for `find`
        truncate(folder)
        assert store.peek("stage", FINGERPRINT) is None
        assert folder.exists()


class TestLatest:
    def test_the_newest_of_its_name_and_ladder(self, store: Store) -> None:
        for age, seed in ((300, 1), (100, 2), (200, 3)):
            folder = publish(store, identity={"seed": seed}).folder
            moment = time.time() - age
            os.utime(folder / MANIFEST, (moment, moment))
        publish(store, name="other", identity={"seed": 4})
        known = store.latest("stage", "100k", "tiny")
        assert known
        assert known["identity"] == {"seed": 2}
        assert store.latest("stage", "100k", "another-ladder") is None
        assert store.latest("teacher", "100k", "tiny") is None

    def test_a_name_is_not_the_beginning_of_another(self, store: Store) -> None:
        publish(store, name="a-b")
        assert store.latest("stage", "a", "tiny") is None

    @pytest.mark.parametrize("damage", [lose_manifest, cut_manifest, strange_manifest])
    def test_what_is_damaged_tells_nothing(self, store: Store, damage: Callable[[Path], None]) -> None:
        damage(publish(store).folder)
        assert store.latest("stage", "100k", "tiny") is None


def test_a_checkpoint_makes_a_computation_resumable(store: Store) -> None:
    assert store.resumable(FINGERPRINT) is None
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    for step in (5, 10):
        Checkpoints(store.checkpoints(FINGERPRINT)).save(step, model, optimizer, {})
    assert store.resumable(FINGERPRINT) == 10
    assert store.resumable(fingerprint({"other": 1})) is None


HOLD = """
import sys, time
from pathlib import Path
from conf.home import Home
from tasks.store.store import Store
with Store(Home(Path(sys.argv[1]))).lock(sys.argv[2]):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""


class TestLock:
    def test_it_is_free_again_when_its_holder_is_killed(self, tmp_path: Path) -> None:
        said: list[str] = []
        store = Store(Home(tmp_path), said.append)
        entered = threading.Event()

        def wait() -> None:
            with store.lock(FINGERPRINT):
                entered.set()

        waiter = threading.Thread(target=wait)
        with child(HOLD, tmp_path, FINGERPRINT, 60) as process:
            assert read_line(process) == "held"
            waiter.start()
            assert not entered.wait(1)
            assert said == [f"another process computes {FINGERPRINT[:12]}; waiting for it"]
            kill(process)
            assert entered.wait(60)
        waiter.join()

    def test_who_comes_second_waits_for_the_first(self, tmp_path: Path) -> None:
        said: list[str] = []
        with child(HOLD, tmp_path, FINGERPRINT, 1) as process:
            assert read_line(process) == "held"
            began = time.monotonic()
            with Store(Home(tmp_path), said.append).lock(FINGERPRINT):
                waited = time.monotonic() - began
            assert waited > 0.5
            assert len(said) == 1

    def test_another_fingerprint_is_not_waited_for(self, tmp_path: Path) -> None:
        said: list[str] = []
        with child(HOLD, tmp_path, FINGERPRINT, 60) as process:
            assert read_line(process) == "held"
            with Store(Home(tmp_path), said.append).lock(fingerprint({"other": 1})):
                kill(process)
            assert said == []

    def test_it_is_let_go_after_an_error(self, store: Store) -> None:
        with pytest.raises(ValueError, match="no"), store.lock(FINGERPRINT):
            raise ValueError("no")
        with store.lock(FINGERPRINT):
            pass


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "1m") as place:
        yield place


def test_a_full_disk_is_one_clear_message(full_disk: Path) -> None:
    store = Store(Home(full_disk / "home"))
    publish(store)

    def too_much(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"x" * 2**21)

    other = {"kind": "stage", "seed": 2}
    with pytest.raises(StoreError, match="No space left on device") as caught:
        publish(store, identity=other, write=too_much)
    for part in ("LADDER_HOME", str(full_disk), "MiB are free", "larger disk", "finished models stay in the store"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 1
    assert store.find("stage", fingerprint(other)) is None
    assert store.find("stage", FINGERPRINT)
    assert list((store.home.store / "writing").iterdir()) == []
