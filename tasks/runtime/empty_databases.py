"""New databases of Prefect and MLflow, with the tables of their migrations.

Both packages make a new SQLite file by all migrations that they ever had, which takes five seconds of a processor for Prefect and one for
MLflow. `empty/` holds what comes out, for the version that it was made with; any other makes its tables itself.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from conf.atomic import write_atomic

SCHEMAS = Path(__file__).with_name("empty")


def begin_database(path: Path, package: Literal["prefect", "mlflow"]) -> None:
    """Make a database that is not there yet, under a lock of the caller's.

    Where it cannot be written, or lies in memory, nothing is done: the package will try, and say so.
    """
    schema = SCHEMAS / f"{package}-{version(package)}.sql"
    if not path.is_absolute() or not schema.is_file() or (path.exists() and path.stat().st_size):
        return

    def write(temporary: Path) -> None:
        with closing(sqlite3.connect(temporary)) as database:
            database.executescript(schema.read_text(encoding="utf-8"))

    with suppress(OSError, sqlite3.Error):
        write_atomic(path, write)
