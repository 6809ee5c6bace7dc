"""The server that we start serves SQLite without refusing what only has to wait."""

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
from flows.serving.parent_watchdog import write_at_once

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
            print("nobody waits")

if sys.argv[2] == "ours":
    write_at_once()
asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize(("whose", "says"), [("ours", "database is locked"), ("theirs", "nobody waits")])
def test_a_transaction_takes_the_lock_when_it_begins(tmp_path: Path, whose: str, says: str):
    """`theirs` tells when Prefect does so by itself, and ours can go."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "prefect.db"), whose]
    env = clean_environment(PREFECT_HOME=str(tmp_path), PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="true")
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == says, done.stderr
