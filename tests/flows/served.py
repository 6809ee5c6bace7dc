"""Servers in processes of their own: Prefect's, and a `ladder serve`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from tasks.runtime.empty_databases import begin_database
from tests.flows.driver import Cli, ask_prefect, clean_environment, healthy, wait_for

UP_SECONDS = 300.0  # on a machine that does much else; some 15 on an idle one
GUARDED = """
from flows.serving.guard.sqlite_transactions import begin_immediate
begin_immediate()
from prefect.cli import app
app()
"""
UIS = ("prefect_ui", "mlflow_ui")  # in serve.json; None where MLflow is off
Start = Callable[..., "Server"]


class PrefectServer:
    """A Prefect server on a port of its own, which can be killed and started again; its database is in a folder."""

    def __init__(self, place: Path, guarded: bool = False) -> None:
        """`guarded`: with the transactions of the server that Ladder starts; without, one of two writers may stand still for a minute."""
        self.program = ["-c", GUARDED] if guarded else ["-m", "prefect"]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.place, self.api = place, f"http://127.0.0.1:{self.port}/api"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        begin_database(self.place / "prefect.db", "prefect")
        env = clean_environment(PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="true", PREFECT_HOME=str(self.place))
        command = [sys.executable, *self.program, "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.place / "server.log").open("a") as log:
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        wait_for(lambda: healthy(self.api), f"Prefect's server, see {self.place}/server.log")

    def kill(self) -> None:
        """Kill it, if it runs."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def found(self, kind: str, **filters: Any) -> list[dict[str, Any]]:
        """Flow runs, task runs, artifacts or logs that a filter of the API finds."""
        return ask_prefect("POST", f"{self.api}/{kind}/filter", json=filters).raise_for_status().json()


class Server:
    """A `ladder serve` under test."""

    def __init__(self, cli: Cli, *args: object, **env: str) -> None:
        self.cli, self.out = cli, cli.home.parent / f"serve-{time.monotonic_ns()}.txt"
        cli = Cli(cli.home, {**cli.env, **env})
        self.process = cli.start_logged(self.out, "serve", *args)
        began = time.monotonic()
        wait_for(lambda: "until Ctrl-C" in self.text or self.process.poll() is not None, "ladder serve", UP_SECONDS)
        assert self.process.poll() is None, self.text
        print(f"up in {time.monotonic() - began:.1f} s")
        self.where = json.loads((cli.home / "serve.json").read_text())
        self.auth = login_of(cli.home) if self.where["prefect_login"] or self.where["mlflow_login"] else None
        self.children = psutil.Process(self.process.pid).children(recursive=True)
        assert len(self.children) >= len([self.where[name] for name in UIS if self.where[name]]) + 1  # and the runner

    @property
    def text(self) -> str:
        return self.out.read_text()

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """The answer to a request to Prefect's API."""
        answer = ask_prefect(method, self.where["prefect_api"] + path, auth=self.auth, **more)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def flow_runs(self) -> dict[str, Any]:
        """Flow runs by id."""
        return {run["id"]: run for run in self.ask("POST", "/flow_runs/filter", json={})}

    def deployment(self, name: str) -> Any:
        return self.ask("GET", f"/deployments/name/{name}")

    def start_run(self, name: str, /, **parameters: Any) -> str:
        """Start a flow run through a deployment, as the form does."""
        deployment = self.deployment(name)["id"]
        return self.ask("POST", f"/deployments/{deployment}/create_flow_run", json={"parameters": parameters})["id"]

    def state(self, run: str) -> str:
        return self.ask("GET", f"/flow_runs/{run}")["state"]["name"]

    def end(self, number: int = signal.SIGINT, seconds: float = 30.0) -> float:
        """End it and check that none of its processes is left; returns the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(seconds)
        left = psutil.wait_procs(self.children, timeout=max(seconds - (time.monotonic() - began), 0))[1]
        took = time.monotonic() - began
        assert left == [], left
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0), self.text
        assert not any(listening(self.where[name]) for name in UIS if self.where[name])
        assert (self.cli.home / "serve.json").is_file() == (number == signal.SIGKILL)
        assert "Traceback" not in self.text
        return took


def login_of(home: Path) -> tuple[str, str]:
    """User and password of the servers of a home."""
    user, _, password = (home / "login").read_text().strip().partition(":")
    return user, password


def listening(address: str) -> bool:
    """Whether anything listens there."""
    there = urlsplit(address)
    try:
        socket.create_connection((there.hostname or "", there.port or 0), timeout=2).close()
    except OSError:
        return False
    return True


def offer(folder: Path, schedules: str = "[]", more: str = "") -> Path:
    """Write a file of deployments with `distill` and the lines `more`."""
    path = folder / "deployments.yaml"
    path.write_text(f"{more}\ndeployments: [{{name: distill, flow: distill, schedules: {schedules}}}]")
    return path
