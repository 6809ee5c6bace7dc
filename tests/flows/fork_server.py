"""Start commands of `ladder` by forking a process that has the heavy libraries imported already.

Importing them takes most of the time of a short command. Only libraries are imported beforehand, and none whose settings are read from
the environment of a test: Prefect and this project are imported by each command itself.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TypedDict

from flows.serving.environment import for_runs

ROOT = Path(__file__).parents[2]
LIBRARIES = (
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
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.transformers",
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
)


class Request(TypedDict):
    """A command: its arguments, its whole environment, its working directory."""

    args: list[str]
    env: dict[str, str]
    cwd: str


class ForkServer:
    """A process that forks a command for each request; it ends with the process that started it."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.address = str(folder / "fork-server")
        command = [sys.executable, "-m", "tests.flows.fork_server", self.address]
        self._process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdout
        assert self._process.stdout.readline(), "the fork server did not start"

    def run(self, args: list[str], env: dict[str, str], cwd: Path, timeout: float, out: int, err: int) -> int | None:
        """Run `ladder` with `args` to its end, its output in the files `out` and `err`; returns its exit code, None after a timeout."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.address)
            connection.settimeout(timeout)
            request = json.dumps({"args": args, "env": env, "cwd": str(cwd)}).encode()
            socket.send_fds(connection, [len(request).to_bytes(8)], [out, err])
            connection.sendall(request)
            pid = int.from_bytes(_exactly(connection, 8))
            try:
                return int.from_bytes(_exactly(connection, 8), signed=True)
            except TimeoutError:
                os.killpg(pid, signal.SIGKILL)
                return None


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = connection.recv(count - len(found))
        assert more, "the other side has closed the connection"
        found += more
    return found


def _serve(address: str) -> Request | None:
    """Serve requests until the parent ends; returns, in the process of a command, the request for it."""
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        listening.settimeout(5)
        print("ready", flush=True)
        while os.getppid() == parent:
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            with connection:
                if os.fork() == 0:
                    return _handle(connection)
    return None


def _handle(connection: socket.socket) -> Request:
    """Fork the command, and send its process id and its exit code; returns in the command alone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, (out, err), *_ = socket.recv_fds(connection, 8, 2)
    request: Request = json.loads(_exactly(connection, int.from_bytes(length)))
    pid = os.fork()
    if pid:
        connection.sendall(pid.to_bytes(8))
        _, status = os.waitpid(pid, 0)
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, signed=True))
        os._exit(0)
    os.setsid()
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    return request


def main(address: str) -> None:
    """Import the libraries, and fork commands; each is as `python -m flows.cli.app` in a process session of its own."""
    os.environ.update(for_runs())  # a command sets these before it imports a library
    for name in LIBRARIES:
        importlib.import_module(name)
    assert threading.active_count() == 1, f"a fork copies one thread alone: {threading.enumerate()}"
    gc.freeze()  # a collection in a command would copy the pages of all that is imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the handlers of requests
    request = _serve(address)
    if request is not None:
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        sys.path[0] = request["cwd"]
        sys.argv = ["ladder", *request["args"]]
        for name in [name for name in sys.modules if name.partition(".")[0] in ("conf", "flows")]:
            del sys.modules[name]
        runpy.run_module("flows.cli.app", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
