"""Hashes of large files are remembered while a file stays as it was, and a plan does not read what no run has read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.simulated.curves import counting
from benchmarks.simulated.planning import ladder_of
from conf.home import Home
from models.base.files import file_sha256
from tasks.data import prepare
from tasks.data.prepare import data_identity
from tasks.data.reading import known_hashes as module
from tasks.data.reading.files import hash_files
from tasks.data.reading.known_hashes import FILE, LEAST, NotRead, current_hashes, known_hashes
from tasks.planning import plan as planning
from tasks.planning.plan import make_plan
from tasks.runtime.runs.run_registry import Context


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files made just now count as old."""
    monkeypatch.setattr(module, "SETTLED_SECONDS", -60.0)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.txt"
    path.write_bytes(b"a line\n" * (LEAST // 7 + 1))
    return path


def hashed(path: Path, home: Path, most: int | None = None) -> tuple[str, int]:
    """The hash of a file, and how often it was opened for it."""
    with counting() as counts, known_hashes(home, most):
        found = current_hashes().of(path)
    return found, counts.opens


@pytest.mark.usefixtures("settled")
def test_a_file_that_stays_is_read_once(large: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    whole = file_sha256(large)
    assert hashed(large, home)[0] == whole
    with known_hashes(home):
        assert hash_files([("large", large)]) == hash_files([("large", large)])
    assert hashed(large, home) == (whole, 1)  # hashes.json alone


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("change", ["content", "name"])
def test_a_file_that_changed_is_read_again(large: Path, tmp_path: Path, change: str) -> None:
    hashed(large, tmp_path)
    before = large.stat()
    other = b"another" * (before.st_size // 7)
    if change == "content":
        large.write_bytes(other)
    else:
        (tmp_path / "new").write_bytes(other)
        (tmp_path / "new").replace(large)
    os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (large.stat().st_size, large.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert hashed(large, tmp_path)[0] == file_sha256(large)


def test_a_file_that_was_just_written_and_a_small_one_are_not_remembered(large: Path, tmp_path: Path) -> None:
    (tmp_path / "small").write_text("x")
    for path in (large, tmp_path / "small"):
        hashed(path, tmp_path)
    assert not (tmp_path / FILE).exists()


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"large.txt": 3}'])
def test_a_damaged_memory_is_none(large: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert hashed(large, tmp_path)[0] == file_sha256(large)
    assert str(large) in json.loads((tmp_path / FILE).read_text())


@pytest.mark.usefixtures("settled")
def test_too_much_is_not_read_unless_it_is_known(large: Path, tmp_path: Path) -> None:
    files = [("large", large)]
    with known_hashes(tmp_path, LEAST), pytest.raises(NotRead, match=r"no run of this home has read 1 MiB of them yet"):
        hash_files(files)
    with known_hashes(tmp_path):
        whole = hash_files(files)
    with known_hashes(tmp_path, LEAST):
        assert hash_files(files) == whole


@pytest.mark.usefixtures("settled")
def test_a_plan_of_large_data_reads_them_only_after_a_run_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for where in (prepare, planning):
        monkeypatch.setattr(where, "PLANNED_BYTES", LEAST)
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "a line of a text that is long enough"}\n' * 50_000)
    home, ladder = Home(tmp_path / "home"), ladder_of(1)
    home.root.mkdir()

    plan = make_plan(ladder, tmp_path, home)
    assert plan.data == "prepare"
    assert any("a plan does not, and takes them as not prepared" in note for note in plan.notes)
    known = data_identity(ladder, Context(run="run", ladder=ladder.name, home=str(home.root), base=str(tmp_path)))
    again = make_plan(ladder, tmp_path, home)
    assert not any("a plan does not" in note for note in again.notes)
    assert known == data_identity(ladder, Context(run="plan", ladder=ladder.name, home=str(home.root), base=str(tmp_path)))
