"""Addresses of SQLite files, and foreign errors as messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from conf.errors import LadderError, UserError, foreign_errors, shown
from conf.home import sqlite_address


@pytest.mark.parametrize("name", ["plain", "a?b", "a#b", "100%", "a%20b", "a b", "it's", 'a"b', "Zoë-日本", "a&b=c", "?mode=memory"])
def test_a_database_lies_where_its_path_says(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    engine = create_engine(sqlite_address(folder / "x.db"))
    with engine.begin() as connection:
        connection.execute(text("create table t (a)"))
    engine.dispose()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [name, f"{name}/x.db"]


def test_an_address_without_special_letters_is_as_ever() -> None:
    assert sqlite_address(Path("/home/zoë/x y.db")) == "sqlite:////home/zoë/x y.db"


def test_what_a_library_raises_becomes_one_line() -> None:
    with pytest.raises(UserError) as caught, foreign_errors("teacher.path", "f", "a model", "Mend it."):
        raise AttributeError("a\nb \x1b[31m.")
    assert str(caught.value) == "teacher.path: got 'f'; allowed: a model. Mend it. (transformers said: a b ?[31m)"
    assert isinstance(caught.value.__cause__, AttributeError)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), LadderError("ours"), SystemExit(3)])
def test_interruptions_and_our_own_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)), foreign_errors("k", "v", "a"):
        raise error


def test_a_panic_of_a_library_is_an_error_too() -> None:
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(UserError), foreign_errors("k", "v", "a"):
        raise panic("index out of bounds")


def test_a_long_value_is_cut() -> None:
    assert len(shown("x" * 10_000)) == 500
