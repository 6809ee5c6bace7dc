"""The command line in real subprocesses, against one real Prefect server for the whole session and a real MLflow database each."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.flows.ladders import TINY
from tests.flows.served import Server, Start

ROOT = Path(__file__).parents[2]
PATIENCE = 400.0  # seconds for any one command, on a machine that does other things too
# A machine trains one ladder at a time; the tests' trainings shall not wait for those of anybody else.
TEMPORARY = tempfile.mkdtemp(prefix="ladder-tests-")
atexit.register(shutil.rmtree, TEMPORARY, ignore_errors=True)
STARTED: list[subprocess.Popen[str]] = []


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float


def clean_environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "LADDER_", "PYTEST_", "HF_"))}
    # One thread: the tests share their cores, and waiting threads that spin would slow all of them down.
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200", "TMPDIR": TEMPORARY, **more}


@dataclass
class Cli:
    """The command `ladder` in a home of its own."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None

    def start(self, *args: object, **popen: Any) -> subprocess.Popen[str]:
        """Start a command in a session of its own; its output goes to files beside the home."""
        self.home.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "flows.cli.app", *map(str, args)]
        env = clean_environment(LADDER_HOME=str(self.home), **self.env)
        process = subprocess.Popen(command, env=env, cwd=self.cwd or self.home.parent, text=True, start_new_session=True, **popen)
        STARTED.append(process)
        return process

    def __call__(self, *args: object, code: int | None = 0) -> Outcome:
        """Run a command to its end; `code` is the exit code that it must have, None for any."""
        began = time.monotonic()
        process = self.start(*args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"{args} did not end in {PATIENCE:.0f} s\n{out}\n{err}")
        assert "Traceback" not in out + err, f"{out}\n{err}"
        if code is not None:
            assert process.returncode == code, f"{args}: exit code {process.returncode}\n{out}\n{err}"
        return Outcome(process.returncode, out, err, time.monotonic() - began)

    def json(self, *args: object) -> Any:
        """The one JSON document that a command prints."""
        return json.loads(self(*args, "--json").out)

    def hashes(self) -> dict[str, str]:
        """Name -> hash of the weights, of every model of the last run."""
        shown = self.json("show")
        return {model["name"]: model["weights_sha256"] for model in (shown["teacher"], *shown["stages"])}


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Poll until `condition` gives something true, and return it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    pytest.fail(f"waited {seconds:.0f} s in vain for {what}")


def half_written(home: Path) -> list[str]:
    """Folders of the store that have no valid manifest, and whatever is left where results are written aside."""
    store = home / "store"
    bad = [str(path) for path in (store / "writing").glob("*")]
    for folder in (path for kind in ("data", "teacher", "stage", "evaluation", "bench") for path in (store / kind).glob("*")):
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
        except (OSError, ValueError):
            bad.append(str(folder))
            continue
        bad += [str(folder / name) for name, known in manifest["files"].items() if (folder / name).stat().st_size != known["bytes"]]
    return bad


def actions(log: str) -> dict[str, str]:
    """Model -> computed, resumed or reused, as the log of a run says."""
    found = dict(re.findall(r"^\S+ (\w+): (computed|resumed)\b", log, re.MULTILINE))
    return found | dict.fromkeys(re.findall(r"^\S+ (?!data:)(\w+): found in the store", log, re.MULTILINE), "reused")


@pytest.fixture(scope="session", autouse=True)
def own_turns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
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
def nothing_stays_behind() -> Iterator[None]:
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


def healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=1.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def empty_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow database; making its tables takes seconds, so every home gets a copy."""
    home = tmp_path_factory.mktemp("record") / "home"
    code = "from conf.home import home; from tasks.tracking.tracker import connect; connect(home())"
    subprocess.run([sys.executable, "-c", code], env=clean_environment(LADDER_HOME=str(home)), check=True, timeout=PATIENCE)
    return home / "mlflow" / "mlflow.db"


def furnish(home: Path, empty_record: Path) -> Path:
    (home / "mlflow").mkdir(parents=True)
    shutil.copy(empty_record, home / "mlflow" / "mlflow.db")
    return home


@pytest.fixture
def cli(tmp_path: Path, prefect_api: str, empty_record: Path) -> Cli:
    """`ladder` in an empty home, against the session's Prefect server."""
    return Cli(furnish(tmp_path / "home", empty_record), {"PREFECT_API_URL": prefect_api})


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
def undisturbed(tmp_path_factory: pytest.TempPathFactory, prefect_api: str, empty_record: Path, tiny: Path) -> Cli:
    """A home in which `tiny` ran from beginning to end. Look, do not touch: `finished` is a copy to work with."""
    done = Cli(furnish(tmp_path_factory.mktemp("undisturbed") / "home", empty_record), {"PREFECT_API_URL": prefect_api})
    done("run", tiny)
    assert half_written(done.home) == []
    return done


@pytest.fixture
def finished(undisturbed: Cli, tmp_path: Path) -> Cli:
    """A copy of the undisturbed home."""
    shutil.copytree(undisturbed.home, tmp_path / "home")
    return Cli(tmp_path / "home", dict(undisturbed.env))


@pytest.fixture
def start(helpers: Any) -> Iterator[Start]:
    """Puts up a `ladder serve`, and ends it after the test."""
    started: list[Server] = []

    def put_up(cli: Any, *args: object, **env: str) -> Server:
        started.append(Server(cli, helpers, *args, **env))
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


@dataclass
class Shown:
    """What Prefect's server at `api` shows of a flow run, and what its own pages can ask of it."""

    api: str
    flow_run: str

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return httpx.post(f"{self.api}/{path}", json=body, trust_env=False, timeout=30).raise_for_status().json()

    @property
    def state(self) -> str:
        return httpx.get(f"{self.api}/flow_runs/{self.flow_run}", trust_env=False, timeout=30).raise_for_status().json()["state_type"]

    @property
    def subflows(self) -> dict[str, str]:
        """Id -> state."""
        found = self.post("flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [self.flow_run]}}})
        return {run["id"]: run["state_type"] for run in found}

    @property
    def tasks(self) -> dict[str, str]:
        """Flow run and name -> state, of all tasks of the run and of its subflows."""
        found = self.post("task_runs/filter", {"task_runs": {"flow_run_id": {"any_": [self.flow_run, *self.subflows]}}})
        return {f"{task['flow_run_id']} {task['name']}": task["state_type"] for task in found}

    def cancel(self) -> None:
        body = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
        assert self.post(f"flow_runs/{self.flow_run}/set_state", body)["status"] == "ACCEPT"


def unguarded(process: subprocess.Popen[str]) -> None:
    """Leave the end of a process to the fixture that started it."""
    STARTED.remove(process)


@pytest.fixture(scope="session")
def helpers() -> Any:
    """The functions above; tests have no package to import them from."""
    from types import SimpleNamespace

    return SimpleNamespace(
        wait_for=wait_for,
        half_written=half_written,
        actions=actions,
        clean_environment=clean_environment,
        healthy=healthy,
        unguarded=unguarded,
        Shown=Shown,
        furnish=furnish,
        Cli=Cli,
    )
