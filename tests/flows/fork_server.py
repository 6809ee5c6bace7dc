"""Start commands of `ladder` by forking a process that has the heavy libraries imported already.

Importing takes most of the time of a short command. Of this project everything that imports no Prefect is imported beforehand, but for the
command line itself. Prefect and MLflow read settings and set up their logging when they are imported; a command that imports them does
that again, and notes it in the file that the variable LADDER_TESTS_IMPORTED names.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import random
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TypedDict, cast

import psutil
from filelock import FileLock

from flows.serving.environment import MLFLOW, OFFLINE
from tests.flows.forked import Forked, read_exactly

ROOT = Path(__file__).parents[2]
MODULES = (
    "accelerate",
    "alembic.command",
    "beartype",
    "datasets",
    "docket",
    "fastapi",
    "fsspec",
    "graphviz",
    "griffe",
    "httpx",
    "jinja2",
    "matplotlib.pyplot",
    "omegaconf",
    "opentelemetry",
    "pandas",
    "pydantic_settings",
    "scipy.stats",
    "sqlalchemy.ext.asyncio",
    "torch",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
    "transformers.models.vit.modeling_vit",
    "typer",
    "websockets",
    "tasks.audit.audit",
    "tasks.bench.bench",
    "tasks.data.prepare",
    "tasks.evaluation.evaluate",
    "tasks.planning.plan",
    "tasks.proof.proof",
    "tasks.report.page",
    "tasks.report.record_model",
    "tasks.teachers.teacher",
    "tasks.training.student",
)

LATE = {
    "mlflow": ("mlflow", "mlflow.store.tracking.sqlalchemy_store", "mlflow.transformers"),
    "prefect": ("prefect.main", "prefect.blocks.webhook", "prefect.deployments.runner", "prefect.server.schemas.schedules"),
}
TEMPORARY = Path(tempfile.gettempdir())  # here, before each test process takes one of its own: a socket's path is short
OTHERS = "others"  # process ids of servers that end with this one
IMPORTED = "LADDER_TESTS_IMPORTED"


class Request(TypedDict):
    """A command: its arguments, its whole environment, its working directory, and the code that is run instead of `ladder`."""

    args: list[str]
    env: dict[str, str]
    cwd: str
    code: str


class Late:
    """Finds a package that is in memory when a command first imports it, and lets it read the environment as it is then."""

    def __init__(self, package: str, modules: Sequence[str], again: Callable[[], None]) -> None:
        assert package not in sys.modules, f"{package} is imported by another module"
        for name in modules:
            importlib.import_module(name)
        self.package, self._again = package, again
        self._modules = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == package}

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        """The place of a module that is in memory."""
        return ModuleSpec(name, cast(Any, self)) if name in self._modules else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module that is in memory, and with it all others."""
        sys.meta_path.remove(cast(Any, self))
        sys.modules.update(self._modules)
        self._spec = self._modules[spec.name].__spec__
        if path := os.environ.get(IMPORTED):
            with Path(path).open("a") as file:
                print(self.package, file=file)
        return self._modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Do again what depends on the environment."""
        module.__spec__ = self._spec
        self._again()


def _set_up_mlflow() -> None:
    import mlflow.utils.logging_utils

    mlflow.utils.logging_utils._configure_mlflow_loggers(root_module_name="mlflow")


def _set_up_prefect() -> None:
    import prefect.context
    import prefect.logging.configuration

    prefect.context.refresh_global_settings_context()
    prefect.logging.configuration.PROCESS_LOGGING_CONFIG.clear()  # so that logging is set up as for the first time
    prefect.logging.configuration.setup_logging()


class ForkServer:
    """A process that forks a command for each request, shared by parallel processes of the tests; it ends with the one that began them."""

    def __init__(self, env: dict[str, str]) -> None:
        first = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
        folder = TEMPORARY / f"ladder-tests-{first}-{psutil.Process(first).create_time():.0f}"
        folder.mkdir(exist_ok=True)
        self.address, self._others = str(folder / "fork-server"), list[subprocess.Popen[bytes]]()
        with FileLock(folder / "lock"):
            if not Path(self.address).exists():
                command = [sys.executable, "-m", "tests.flows.fork_server", self.address, str(first)]
                self._process = subprocess.Popen(
                    command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
                )
                assert self._process.stdout
                assert self._process.stdout.readline(), "the fork server did not start"
                self._process.stdout.close()
                atexit.register(_let_go, self._process)

    def end_with(self, process: subprocess.Popen[bytes]) -> None:
        """Let another server, in a process session of its own, end when this one ends."""
        self._others.append(process)
        atexit.register(_let_go, process)
        with Path(self.address).with_name(OTHERS).open("a") as file:
            print(process.pid, file=file)

    def start(self, args: list[str], env: dict[str, str], cwd: Path, out: int, err: int, code: str = "") -> Forked:
        """Start `ladder`, or this code, with `args`, its output in the files `out` and `err`."""
        return Forked(self.address, args, env, cwd, out, err, code)


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Leave a process that outlives this one, of which `Popen` would warn."""
    process.returncode = process.poll() or 0


def _serve(address: str, parent: int) -> Request | None:
    """Serve requests until the process `parent` ends; returns, in the process of a command, the request for it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        listening.settimeout(5)
        print("ready", flush=True)
        while psutil.pid_exists(parent):
            _reap()
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            with connection:
                if os.fork() == 0:
                    return _handle(connection)
    return None


def _reap() -> None:
    """Wait for the handlers that have ended, so that the processor time of their commands counts as this process's."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _handle(connection: socket.socket) -> Request:
    """Fork the command, and send its process id and its exit code; returns in the command alone."""
    length, (out, err), *_ = socket.recv_fds(connection, 8, 2)
    request: Request = json.loads(read_exactly(connection, int.from_bytes(length)))
    pid = os.fork()
    if pid:
        connection.sendall(pid.to_bytes(8))
        _, status = os.waitpid(pid, 0)
        with suppress(BrokenPipeError):  # who started it has ended
            connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, signed=True))
        os._exit(0)
    os.setsid()
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    return request


def main(address: str, parent: str) -> None:
    """Import the libraries, and fork commands; each is as `python -m flows.cli.app` in a process session of its own."""
    os.environ.update({**OFFLINE, **MLFLOW})  # a command sets these before it imports a library
    for name in MODULES:
        importlib.import_module(name)
    late = [Late("mlflow", LATE["mlflow"], _set_up_mlflow), Late("prefect", LATE["prefect"], _set_up_prefect)]
    for name in [name for name in sys.modules if name.partition(".")[0] == "flows"]:
        del sys.modules[name]
    assert threading.active_count() == 1, f"a fork copies one thread alone: {threading.enumerate()}"
    gc.freeze()  # a collection in a command would copy the pages of all that is imported
    request = _serve(address, int(parent))
    if request is None:
        folder = Path(address).parent
        for pid in (folder / OTHERS).read_text().split() if (folder / OTHERS).exists() else ():
            with suppress(ProcessLookupError):
                os.killpg(int(pid), signal.SIGKILL)
        shutil.rmtree(folder)
    else:
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        sys.path[0] = request["cwd"]
        sys.argv = ["-c" if request["code"] else "ladder", *request["args"]]
        sys.meta_path[:0] = late
        tempfile.tempdir = None
        random.seed()
        _exit(_run(request["code"]))


def _run(code: str) -> int:
    """Run the command line as `python -m` does, or the code as `python -c` does; returns the exit code."""
    try:
        if code:
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_module("flows.cli.app", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - the end of a process, as Python ends it
        traceback.print_exc()
        return 1
    return 0


def _exit(code: int) -> NoReturn:
    """End the process as Python does, but without taking everything that was imported apart, which takes half a second."""
    cast(Any, threading)._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
