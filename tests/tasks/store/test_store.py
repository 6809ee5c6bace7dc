"""The store: what is visible is whole, what is damaged is never used, and a dead process holds nothing."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from conf.errors import StoreError
from conf.home import Home
from models.training.checkpoints import Checkpoints
from tasks.store.fingerprint import fingerprint
from tasks.store.store import MANIFEST, SHOWN, Store, verify
from tests.machine import child, kill, read_line, small_disk
from tests.tasks.store.results import FINGERPRINT, IDENTITY, WEIGHTS, fill, publish


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

    @pytest.mark.processes
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

    @pytest.mark.processes
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
    @pytest.mark.processes
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

    @pytest.mark.processes
    def test_who_comes_second_waits_for_the_first(self, tmp_path: Path) -> None:
        said: list[str] = []
        with child(HOLD, tmp_path, FINGERPRINT, 1) as process:
            assert read_line(process) == "held"
            began = time.monotonic()
            with Store(Home(tmp_path), said.append).lock(FINGERPRINT):
                waited = time.monotonic() - began
            assert waited > 0.5
            assert len(said) == 1

    @pytest.mark.processes
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
