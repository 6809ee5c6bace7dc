"""Fixtures of the flow tests: a Prefect server for the session, homes with a MLflow database each, finished runs."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.flows.driver import STARTED, Cli, clean_environment, fork_server, half_written, home_with_database, run_python
from tests.flows.ladders import TINY
from tests.flows.served import PrefectServer, Server, Start


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Restore Ctrl-C, which a shell's background jobs ignore, and with them every process started from here."""
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


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one of the parallel workers makes, and all of them read."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(shared / f"{name}.lock"):
        if not (shared / f"{name}.made").exists():
            make(shared / name)
            (shared / f"{name}.made").touch()
    return shared / name


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of the API of a Prefect server that all parallel workers use."""

    def make(folder: Path) -> None:
        folder.mkdir()
        server = PrefectServer(folder, guarded=True)
        server.start()
        assert server.process
        fork_server().end_with(server.process)
        (folder / "api").write_text(server.api)

    return (make_once(tmp_path_factory, "prefect", make) / "api").read_text()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow database; making its tables takes seconds, so every home gets a copy."""

    def make(home: Path) -> None:
        code = "from conf.home import home; from tasks.tracking.tracker import connect; connect(home())"
        assert run_python(code, env=clean_environment(LADDER_HOME=str(home))).code == 0

    return make_once(tmp_path_factory, "record", make) / "mlflow" / "mlflow.db"


@pytest.fixture
def cli(tmp_path: Path, prefect_api: str, empty_database: Path) -> Cli:
    """`ladder` in an empty home, against the session's Prefect server."""
    return Cli(home_with_database(tmp_path / "home", empty_database), {"PREFECT_API_URL": prefect_api})


@pytest.fixture
def bare(tmp_path: Path) -> Cli:
    """`ladder` in a home that does not exist yet, with nothing configured: Prefect's server is the embedded one."""
    return Cli(tmp_path / "home")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ladder that most tests run."""
    path = tmp_path_factory.mktemp("ladders") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, prefect_api: str, empty_database: Path, tiny: Path) -> Cli:
    """A home in which `tiny` ran from beginning to end. Tests only read it: `finished` is a copy to work with."""

    def make(folder: Path) -> None:
        home = home_with_database(folder / "home", empty_database)
        Cli(home, {"PREFECT_API_URL": prefect_api})("run", tiny)
        assert half_written(home) == []

    return Cli(make_once(tmp_path_factory, "undisturbed", make) / "home", {"PREFECT_API_URL": prefect_api})


@pytest.fixture
def finished(undisturbed: Cli, tmp_path: Path) -> Cli:
    """A copy of the undisturbed home."""
    shutil.copytree(undisturbed.home, tmp_path / "home")
    return Cli(tmp_path / "home", dict(undisturbed.env))


@pytest.fixture
def start() -> Iterator[Start]:
    """A function that starts a `ladder serve`, which is ended after the test."""
    started: list[Server] = []

    def start_server(cli: Cli, *args: object, **env: str) -> Server:
        started.append(Server(cli, *args, **env))
        return started[-1]

    yield start_server
    for server in started:
        if server.process.poll() is None:
            server.end(signal.SIGTERM)


@pytest.fixture
def done(undisturbed: Cli, tmp_path: Path) -> Cli:
    """A home in which `tiny` is finished, with no server configured."""
    shutil.copytree(undisturbed.home, tmp_path / "home")
    return Cli(tmp_path / "home")
