"""Transactions of Prefect on SQLite wait for their lock, and are not refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.conftest import clean_environment

# A transaction of Prefect's that has only read yet; says whether another could write meanwhile.
PROGRAM = """
import asyncio, sqlite3, sys
from sqlalchemy import text
from prefect.server.database.configurations import AioSqliteConfiguration
from flows.serving.guard.sqlite_transactions import begin_immediate

async def main(path):
    known = AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{path}")
    session = await known.session(await known.engine())
    async with session, known.begin_transaction(session, with_for_update=False):
        await session.execute(text("select count(*) from sqlite_master"))
        try:
            sqlite3.connect(path, timeout=0, isolation_level=None).execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            print(error)
        else:
            print("no lock")

if sys.argv[2] == "ours":
    begin_immediate()
asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize(("whose", "says"), [("ours", "database is locked"), ("theirs", "no lock")])
def test_a_transaction_takes_the_lock_when_it_begins(tmp_path: Path, whose: str, says: str):
    """`theirs` fails once Prefect takes the lock by itself: then the patch can be deleted."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "prefect.db"), whose]
    env = clean_environment(PREFECT_HOME=str(tmp_path), PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="true")
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == says, done.stderr
