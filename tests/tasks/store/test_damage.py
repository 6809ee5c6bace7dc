"""Damaged results are named, set aside and never used; foreign files are moved out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.home import Home
from tasks.store.store import MANIFEST, Store, verify
from tests.tasks.store.results import FINGERPRINT, WEIGHTS, publish


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


@pytest.mark.parametrize("damage", [lose_manifest, cut_manifest, strange_manifest])
def test_what_is_damaged_tells_nothing(store: Store, damage: Callable[[Path], None]) -> None:
    damage(publish(store).folder)
    assert store.latest("stage", "100k", "tiny") is None
