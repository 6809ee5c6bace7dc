"""The command line in real subprocesses, against one real Prefect server for the whole session and a real MLflow database each."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.driver import COMMAND_TIMEOUT, STARTED, Cli, clean_environment, half_written, healthy, home_with_database, wait_for
from tests.flows.ladders import TINY
from tests.flows.served import Server, Start


@pytest.fixture(scope="session", autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trainings take turns in the temporary folder: one of this session's own, so that no other session's training is in the way."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(tmp_path_factory.mktemp("turns"))
    yield
    os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """A shell's background jobs ignore Ctrl-C, and so would every process started from here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def end_left_processes() -> Iterator[None]:
    """End what a failed test has left running."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the API of a Prefect server that lives as long as the session."""
    place = tmp_path_factory.mktemp("prefect")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true", "PREFECT_HOME": str(place)}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (place / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=clean_environment(**quiet), stdout=log, stderr=log, start_new_session=True)
    try:
        api = f"http://127.0.0.1:{port}/api"
        wait_for(lambda: healthy(api), f"Prefect's server, see {place}/server.log")
        yield api
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(10)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow database; making its tables takes seconds, so every home gets a copy."""
    home = tmp_path_factory.mktemp("record") / "home"
    code = "from conf.home import home; from tasks.tracking.tracker import connect; connect(home())"
    subprocess.run([sys.executable, "-c", code], env=clean_environment(LADDER_HOME=str(home)), check=True, timeout=COMMAND_TIMEOUT)
    return home / "mlflow" / "mlflow.db"


@pytest.fixture
def cli(tmp_path: Path, prefect_api: str, empty_database: Path) -> Cli:
    """`ladder` in an empty home, against the session's Prefect server."""
    return Cli(home_with_database(tmp_path / "home", empty_database), {"PREFECT_API_URL": prefect_api})


@pytest.fixture
def bare(tmp_path: Path) -> Cli:
    """`ladder` in a home that is not there yet, with nothing configured: Prefect's server is the embedded one."""
    return Cli(tmp_path / "home")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ladder that most tests run."""
    path = tmp_path_factory.mktemp("ladders") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, prefect_api: str, empty_database: Path, tiny: Path) -> Cli:
    """A home in which `tiny` ran from beginning to end. Look, do not touch: `finished` is a copy to work with."""
    done = Cli(home_with_database(tmp_path_factory.mktemp("undisturbed") / "home", empty_database), {"PREFECT_API_URL": prefect_api})
    done("run", tiny)
    assert half_written(done.home) == []
    return done


@pytest.fixture
def finished(undisturbed: Cli, tmp_path: Path) -> Cli:
    """A copy of the undisturbed home."""
    shutil.copytree(undisturbed.home, tmp_path / "home")
    return Cli(tmp_path / "home", dict(undisturbed.env))


@pytest.fixture
def start() -> Iterator[Start]:
    """Puts up a `ladder serve`, and ends it after the test."""
    started: list[Server] = []

    def put_up(cli: Cli, *args: object, **env: str) -> Server:
        started.append(Server(cli, *args, **env))
        return started[-1]

    yield put_up
    for server in started:
        if server.process.poll() is None:
            server.end(signal.SIGTERM)


@pytest.fixture
def done(undisturbed: Cli, tmp_path: Path) -> Cli:
    """A home in which `tiny` is finished, with no server configured."""
    shutil.copytree(undisturbed.home, tmp_path / "home")
    return Cli(tmp_path / "home")
