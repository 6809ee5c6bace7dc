"""Damaged SQLite files are set aside, locked ones are left alone, lost ones are told."""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from conf.errors import LadderError
from tasks.runtime.sqlite_files import look_at


class Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def said() -> Iterator[Said]:
    log, handler = logging.getLogger("ladder"), Said()
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


@pytest.fixture(params=["delete", "wal"])
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "odd ?#%.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"pragma journal_mode = {request.param}")
        connection.execute("create table runs (name text)")
        connection.executemany("insert into runs values (?)", [("x" * 100,)] * 1000)
        connection.commit()
    return path


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("select count(*) from runs").fetchone()[0]


def look(path: Path, was_there: bool = True) -> None:
    look_at(path, "MLflow's database", lambda: was_there, patience=0.1)


def test_a_healthy_one_stays(file: Path, said: Said) -> None:
    look(file)
    assert (rows(file), said.messages) == (1000, [])


def test_a_locked_one_stays_and_its_lock_is_named(file: Path, said: Said) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("pragma locking_mode = exclusive")
        other.execute("begin exclusive")
        other.execute("insert into runs values ('y')")
        with pytest.raises(LadderError, match=r"is locked by another process for 0 s\. It is healthy"):
            look(file)
        other.execute("commit")
    look(file)
    assert (rows(file), said.messages) == (1001, [])


def test_another_that_writes_is_no_damage(file: Path, said: Said) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("begin immediate")
        other.executemany("insert into runs values (?)", [("y" * 100,)] * 1000)
        look(file)
        other.execute("commit")
    assert (rows(file), said.messages) == (2000, [])


@pytest.mark.parametrize("kept", [100, 1000, 4096, 50_000])
def test_a_cut_one_is_set_aside(file: Path, said: Said, kept: int) -> None:
    content = file.read_bytes()[:kept]
    file.write_bytes(content)
    look(file)
    assert not file.exists()
    (aside,) = file.parent.glob("*.damaged-*")
    assert aside.read_bytes() == content
    assert len(said.messages) == 1
    assert aside.name in said.messages[0]


def test_junk_is_set_aside(file: Path, said: Said) -> None:
    for _ in range(2):
        file.write_bytes(random.Random(0).randbytes(5000))
        look(file)
    assert (len(list(file.parent.glob("*.damaged-*"))), len(said.messages)) == (2, 2)


@pytest.mark.parametrize("was_there", [True, False])
@pytest.mark.parametrize("empty", [True, False])
def test_a_lost_one_is_told_if_something_was_in_it(tmp_path: Path, said: Said, empty: bool, was_there: bool) -> None:
    path = tmp_path / "x.db"
    if empty:
        path.touch()
    look(path, was_there)
    assert len(said.messages) == was_there
    assert path.exists() == empty
