"""An export is copied whole or not at all, and never over somebody's files."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from conf.errors import StoreError, UserError
from tasks.export import deliver as delivering
from tasks.export.deliver import LINKED, check_free, deliver
from tasks.records.bench import Spread
from tasks.records.export import ExportDifference, ExportRecord, FormatFigures

FIGURES = FormatFigures(
    quality={"accuracy": 0.9, "nll": 0.1},
    request=Spread(p50=0.1, p95=0.2, p99=0.2, mean=0.1, count=3),
    load_seconds=0.1,
    peak_bytes=2,
    library_bytes=1,
    bytes=3,
)


@pytest.fixture
def stored(tmp_path: Path) -> ExportRecord:
    folder = tmp_path / "store"
    folder.mkdir()
    record = ExportRecord(
        name="onnx",
        stage="one",
        weights_sha256="w",
        fingerprint="f",
        files={},
        student=FIGURES,
        export=FIGURES,
        difference=ExportDifference(examples=1, rows=1, largest=0.0, agreement=1.0, kl=0.0),
        machine="m",
        made="2026-01-01T00:00:00+00:00",
        seconds=1.0,
    )
    (folder / "export.json").write_text(record.model_dump_json())
    (folder / "model.onnx").write_bytes(b"x" * LINKED)
    (folder / "config.json").write_text("{}")
    (folder / "manifest.json").write_text("{}")
    return record.model_copy(update={"folder": str(folder)})


def test_large_files_are_linked_and_small_ones_copied(stored: ExportRecord, tmp_path: Path) -> None:
    to = tmp_path / "a" / "b"
    assert deliver(stored, to) is True
    assert {path.name for path in to.iterdir()} == {"export.json", "model.onnx", "config.json"}
    assert (to / "model.onnx").samefile(Path(stored.folder) / "model.onnx")
    assert not (to / "config.json").samefile(Path(stored.folder) / "config.json"), "people edit such files"
    assert deliver(stored, to) is False, "it is there"


def test_another_disk_gets_copies(stored: ExportRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    deliver(stored, tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx").read_bytes() == b"x" * LINKED


def test_a_file_and_a_folder_with_files_are_refused(stored: ExportRecord, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"--to: got '.*file'; allowed: a folder that does not exist yet, or is empty. This is a file"):
        check_free(tmp_path / "file", "f")
    with pytest.raises(UserError, match=r"It holds mine\.txt\. Choose another"):
        deliver(stored, tmp_path / "folder")
    with pytest.raises(UserError, match="A part of the path is a file"):
        check_free(tmp_path / "file" / "below", "f")
    assert (tmp_path / "folder" / "mine.txt").read_text() == "mine"


def test_a_changed_copy_is_somebodys(stored: ExportRecord, tmp_path: Path) -> None:
    deliver(stored, tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text('{"mine": 1}')
    with pytest.raises(UserError, match=r"config\.json was changed or removed"):
        deliver(stored, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_text() == '{"mine": 1}'


def test_files_that_come_meanwhile_stay(stored: ExportRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = tmp_path / "out"

    def meanwhile(folder: Path) -> None:
        to.mkdir()
        (to / "mine").write_text("mine")

    monkeypatch.setattr(delivering, "fsync_tree", meanwhile)
    with pytest.raises(UserError, match="Something was put there meanwhile"):
        deliver(stored, to)
    assert [path.name for path in to.iterdir()] == ["mine"]
    assert not list(tmp_path.glob(".out*"))


def test_a_full_disk_leaves_nothing(stored: ExportRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StoreError, match=r"--to: cannot write to .*No space left on device.*the export itself is in the store"):
        deliver(stored, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_what_a_dead_process_had_begun_is_removed(stored: ExportRecord, tmp_path: Path) -> None:
    dead, alive = tmp_path / ".out.4194305.writing", tmp_path / f".out.{os.getppid()}.writing"
    for folder in (dead, alive):
        folder.mkdir()
    deliver(stored, tmp_path / "out")
    assert not dead.exists()
    assert alive.exists()
