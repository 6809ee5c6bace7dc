"""The command line in subprocesses, as tests drive it, and the state of runs in its home and in Prefect."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import httpx
import pytest

from conf.native import ALLOCATOR
from tests.flows.fork_server import ForkServer
from tests.flows.forked import Forked

ROOT = Path(__file__).parents[2]
COMMAND_TIMEOUT = 400.0  # seconds for any one command, on a machine that does other things too
# A machine trains one ladder at a time; the tests' trainings shall not wait for those of anybody else.
TEMPORARY = tempfile.mkdtemp(prefix="ladder-tests-")
atexit.register(shutil.rmtree, TEMPORARY, ignore_errors=True)
LONG_LIVED = {"serve"}  # and looked at as a process, which a fork of another one is not
Process = subprocess.Popen[str] | Forked
# Variables that nothing reads when it is imported.
READ_LATE = ("AWS_", "LADDER_", "PREFECT_", "MLFLOW_TRACKING_", "COLUMNS", "COMP_", "_LADDER_COMPLETE", "_TYPER_COMPLETE_")
STARTED: list[Process] = []


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float


def clean_environment(**more: str) -> dict[str, str]:
    """This environment without settings of Prefect, MLflow, Ladder, pytest and the hub, and with `more`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "LADDER_", "PYTEST_", "HF_"))}
    # One thread: the tests share their cores, and waiting threads that spin would slow all of them down.
    ours = {"LADDER_SERVER_SECONDS": "0", "TMPDIR": TEMPORARY}  # an embedded server ends with its run
    ours |= {"PREFECT_API_TLS_INSECURE_SKIP_VERIFY": "true"}  # no server speaks TLS here, for which each client would read all certificates
    return {**kept, **ALLOCATOR, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **ours, **more}


@lru_cache
def fork_server() -> ForkServer:
    """The fork server of this session, started when first asked for."""
    return ForkServer(clean_environment())


def start_python(code: str, *args: object, stdout: int, stderr: int = 2, env: dict[str, str], cwd: Path = ROOT) -> Forked:
    """Start code that imports much; no variable that a library reads when it is imported has an effect."""
    return fork_server().start(list(map(str, args)), env, cwd, stdout, stderr, code)


def run_python(code: str, *args: object, env: dict[str, str], cwd: Path = ROOT) -> Outcome:
    """Run code that imports much to its end."""
    return run_together(code, [args], [env], cwd)[0]


def run_together(code: str, arguments: Sequence[Sequence[object]], envs: Sequence[dict[str, str]], cwd: Path = ROOT) -> list[Outcome]:
    """Run code that imports much in several processes at once, each with its arguments and its environment."""
    began = time.monotonic()
    with contextlib.ExitStack() as opened:
        files = [[opened.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)] for _ in arguments]
        processes = [
            start_python(code, *given, stdout=out.fileno(), stderr=err.fileno(), env=env, cwd=cwd)
            for given, env, (out, err) in zip(arguments, envs, files, strict=True)
        ]
        try:
            codes = [process.wait(COMMAND_TIMEOUT) for process in processes]
        finally:
            for process in processes:
                process.kill()
        for file in itertools.chain(*files):
            file.seek(0)
        return [Outcome(ended, out.read(), err.read(), time.monotonic() - began) for ended, (out, err) in zip(codes, files, strict=True)]


@dataclass
class Cli:
    """The command `ladder` in a home of its own."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    program: tuple[str, str] = ("-m", "flows.cli.app")  # or code that changes something and then calls `main`

    def start(self, *args: object, stdout: IO[str] | None = None, stderr: IO[str] | None = None) -> Process:
        """Start a command in a process session of its own, its output in these files; without them nobody reads it."""
        if self.cwd is None:
            self.home.parent.mkdir(parents=True, exist_ok=True)
        env, cwd = clean_environment(LADDER_HOME=str(self.home), **self.env), self.cwd or self.home.parent
        with Path(os.devnull).open("w") as nowhere:
            out, err = stdout or nowhere, stderr or nowhere
            if self._can_be_forked(*args):
                process: Process = fork_server().start(list(map(str, args)), env, cwd, out.fileno(), err.fileno())
            else:
                command = [sys.executable, *self.program, *map(str, args)]
                process = subprocess.Popen(command, env=env, cwd=cwd, stdout=out, stderr=err, text=True, start_new_session=True)
        STARTED.append(process)
        return process

    def start_logged(self, log: Path, *args: object) -> Process:
        """Start a command whose output goes to the file `log`."""
        with log.open("w") as file:
            return self.start(*args, stdout=file, stderr=file)

    def __call__(self, *args: object, code: int | None = 0) -> Outcome:
        """Run a command to its end; `code` is the exit code that it must have, None for any."""
        began = time.monotonic()
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process, late = self.start(*args, stdout=out, stderr=err), False
            try:
                process.wait(COMMAND_TIMEOUT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                late = True
            ended = process.wait()
            out.seek(0)
            err.seek(0)
            done = Outcome(ended, out.read(), err.read(), time.monotonic() - began)
        said = f"{args}: exit code {ended}\n{done.out}\n{done.err}"
        assert not late, f"it did not end in {COMMAND_TIMEOUT:.0f} s: {said}"
        assert "Traceback" not in done.out + done.err, said
        assert code in (None, ended), said
        return done

    def _can_be_forked(self, command: object = None, *_: object) -> bool:
        """Whether nothing that the command is given is read when Python starts or when a library is imported, and a fork will do."""
        late = all(name.startswith(READ_LATE) for name in self.env)
        return late and command not in LONG_LIVED and self.program == Cli.program and "LADDER_TESTS_START_ALL" not in os.environ

    def json(self, *args: object) -> Any:
        """The one JSON document that a command prints."""
        return json.loads(self(*args, "--json").out)

    def hashes(self) -> dict[str, str]:
        """Name -> hash of the weights, of every model of the last run."""
        shown = self.json("show")
        return {model["name"]: model["weights_sha256"] for model in (shown["teacher"], *shown["stages"])}


def wait_for(condition: Callable[[], Any], what: str, seconds: float = COMMAND_TIMEOUT) -> Any:
    """Poll until `condition` returns something true, and return that; `what` names it in the failure."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if result := condition():
            return result
        time.sleep(0.02)
    pytest.fail(f"waited {seconds:.0f} s for {what}")


def newest_checkpoint(home: Path) -> int:
    """The step of the newest checkpoint of a home's trainings, 0 where there is none."""
    return max((int(path.name.removeprefix("step-")) for path in home.glob("store/checkpoints/*/step-*")), default=0)


def half_written(home: Path) -> list[str]:
    """Folders of the store that have no valid manifest, and what is left in the folder where results are written."""
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


def healthy(api: str) -> bool:
    """Whether the server of an API answers."""
    try:
        return httpx.get(f"{api}/health", timeout=1.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def ask_prefect(method: str, url: str, **more: Any) -> httpx.Response:
    """A request to a Prefect server; it is repeated where the database was busy with another test, as Prefect's own client repeats it."""
    until = time.monotonic() + 60
    while True:
        answer = httpx.request(method, url, trust_env=False, **{"timeout": 60.0, **more})
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > until:
            return answer
        time.sleep(0.5)


def home_with_database(home: Path, empty_database: Path) -> Path:
    """Make a home with a copy of an empty MLflow database."""
    (home / "mlflow").mkdir(parents=True)
    shutil.copy(empty_database, home / "mlflow" / "mlflow.db")
    return home


@dataclass
class FlowRun:
    """A flow run as the API of Prefect's server at `api` shows it; the requests are those of Prefect's own pages."""

    api: str
    flow_run: str
    auth: tuple[str, str] | None = None

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return ask_prefect("POST", f"{self.api}/{path}", json=body, auth=self.auth).raise_for_status().json()

    @property
    def state(self) -> str:
        found = ask_prefect("GET", f"{self.api}/flow_runs/{self.flow_run}", auth=self.auth)
        return found.raise_for_status().json()["state_type"]

    @property
    def state_name(self) -> str:
        return ask_prefect("GET", f"{self.api}/flow_runs/{self.flow_run}").raise_for_status().json()["state_name"]

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


def last_flow_run(cli: Cli) -> FlowRun:
    """The flow run of the last run of a home."""
    return FlowRun(cli.env["PREFECT_API_URL"], cli.json("show")["prefect_run_id"])


def keep_running(process: Process) -> None:
    """Let a process outlive the test; the fixture that started it ends it."""
    STARTED.remove(process)
