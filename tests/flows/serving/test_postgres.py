"""PostgreSQL in place of SQLite, for Prefect and MLflow (Debian: postgresql)."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.home import Home
from conf.loading.load import load
from tasks.search.plan import plan_search
from tasks.search.study import claimed, open_study
from tests.flows.driver import Cli, actions, wait_for

pytestmark = [pytest.mark.postgres, pytest.mark.slow]
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


def as_user() -> dict[str, str]:
    """PostgreSQL does not run as root; its package makes a user for it."""
    return {"user": "postgres"} if os.getuid() == 0 else {}


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address, without its scheme, of a PostgreSQL server that lives as long as the test, with the databases `prefect` and `mlflow`."""
    if not PROGRAMS:
        pytest.skip("needs the programs of a PostgreSQL server, which pip cannot install (Debian: apt-get install postgresql)")
    programs, place = PROGRAMS[-1].parent, Path("/tmp") / f"ladder-postgres-{os.getpid()}"
    place.mkdir()
    if os.getuid() == 0:
        shutil.chown(place, pwd.getpwnam("postgres").pw_uid)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": place, **as_user()}
    subprocess.run([programs / "initdb", "-D", place / "data", "-U", "ladder", "--auth=trust"], check=True, **quiet)
    options = ["-D", place / "data", "-p", str(port), "-h", "127.0.0.1", "-k", place, "-c", "fsync=off"]
    server = subprocess.Popen([programs / "postgres", *options], **quiet)
    try:
        ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        wait_for(lambda: subprocess.run(ready, check=False, **quiet).returncode == 0, "PostgreSQL")
        for name in ("prefect", "mlflow"):
            command = [programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "ladder", name]
            subprocess.run(command, check=True, **quiet)
        yield f"ladder@127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)  # a fast shutdown
        server.wait(30)
        shutil.rmtree(place)


def test_a_ladder_on_postgresql(bare, tiny, undisturbed, database: str):
    env = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{database}/prefect",
        "MLFLOW_TRACKING_URI": f"postgresql+psycopg2://{database}/mlflow",
    }
    cli = Cli(bare.home, env)
    cli("run", tiny)
    shown = cli.json("show")
    assert shown["status"] == "done"
    assert cli.hashes() == undisturbed.hashes()
    assert shown["mlflow_uri"].startswith("postgresql+psycopg2://")
    assert not list(cli.home.rglob("*.db")), "nothing went to SQLite"

    from mlflow import MlflowClient

    client = MlflowClient(env["MLFLOW_TRACKING_URI"])
    parent = client.get_run(shown["mlflow_run_id"])
    children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {run.data.tags["ladder.stage"] for run in children} == {"teacher", "one", "two", "three"}

    again = cli("run", tiny)
    assert set(actions(again.err).values()) == {"reused"}
    psql = [PROGRAMS[-1].with_name("psql"), "-h", "127.0.0.1", "-p", database.rsplit(":", 1)[1], "-U", "ladder", "-d", "prefect", "-At"]
    names = subprocess.run([*psql, "-c", "select name from flow_run where state_type = 'COMPLETED'"], capture_output=True, text=True)
    assert {"one <- teacher", "two <- one", "three <- two"} <= set(names.stdout.splitlines())


def test_searches_of_two_homes_work_at_one_study(database: str, tmp_path: Path):
    wanted = plan_search(load("digits", (f"search.storage=postgresql://{database}/mlflow", "search.study=shared")).ladder)
    here, there = Home(tmp_path / "here"), Home(tmp_path / "there")
    first, second = open_study(wanted, here), open_study(wanted, there)
    with claimed(here, wanted), claimed(there, wanted):
        assert [study.ask().number for study in (first, second)] == [0, 1]
    assert [trial.number for trial in open_study(wanted, here).abandoned()] == [0], "the other home's trial is its own"
    assert [trial.number for trial in open_study(wanted, there).abandoned()] == [1]
    assert [trial.state for trial in first.records] == ["running", "running"]
