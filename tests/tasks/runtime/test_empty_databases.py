"""The shipped empty databases are those that the installed Prefect and MLflow would make.

`python -m tests.tasks.runtime.test_empty_databases` writes them anew.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest

from tasks.runtime.empty_databases import SCHEMAS, begin_database

PACKAGES = ("prefect", "mlflow")
MAKE = {
    "prefect": """
import asyncio, os, sys
os.environ |= {"PREFECT_HOME": sys.argv[1], "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true"}
os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{sys.argv[1]}/made.db"
from prefect.server.database import provide_database_interface
asyncio.run(provide_database_interface().create_db())
""",
    "mlflow": """
import sys
from mlflow.store.db.utils import _initialize_tables
from sqlalchemy import create_engine
_initialize_tables(create_engine(f"sqlite:///{sys.argv[1]}/made.db"))
""",
}


def made_by(package: str) -> str:
    """The statements that make the tables of a new database of the installed package."""
    with tempfile.TemporaryDirectory() as folder:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
        subprocess.run([sys.executable, "-c", MAKE[package], folder], env=env, check=True, capture_output=True)
        with closing(sqlite3.connect(f"{folder}/made.db")) as database:
            return "\n".join(line.rstrip() for statement in database.iterdump() for line in statement.splitlines()) + "\n"


def parts(script: str) -> list[list[str]]:
    """Columns and constraints of each table and index, without the order that they have by chance."""
    return sorted(sorted(line.strip().rstrip(",") for line in statement.splitlines()) for statement in script.split(";\n"))


@pytest.mark.parametrize("package", PACKAGES)
def test_there_is_one_for_the_installed_version(package: str) -> None:
    assert [path.name for path in SCHEMAS.glob(f"{package}-*.sql")] == [f"{package}-{version(package)}.sql"], __doc__


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_it_is_what_the_migrations_make(package: str) -> None:
    shipped = (SCHEMAS / f"{package}-{version(package)}.sql").read_text()
    assert parts(shipped) == parts(made_by(package)), __doc__


@pytest.mark.parametrize("package", PACKAGES)
def test_only_a_new_database_is_made(package: str, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    path.touch()
    begin_database(path, package)
    with closing(sqlite3.connect(path)) as database:
        assert len(database.execute("select name from sqlite_master where type = 'table'").fetchall()) > 20
        assert len(database.execute("select * from alembic_version").fetchall()) == 1
    path.write_bytes(b"x")
    begin_database(path, package)
    assert path.read_bytes() == b"x"


def main() -> None:
    """Write the statements of both packages anew."""
    for package in PACKAGES:
        for old in SCHEMAS.glob(f"{package}-*.sql"):
            old.unlink()
        (SCHEMAS / f"{package}-{version(package)}.sql").write_text(made_by(package))


if __name__ == "__main__":
    main()
