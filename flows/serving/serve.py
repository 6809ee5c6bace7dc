"""`ladder serve`: run Prefect's and MLflow's servers and the deployments.

This process starts and supervises three others: the two servers (`parent_watchdog.py`) and the one that starts flow runs
(`flow_runner.py`). None outlives it. The kernel keeps the order of the end: the servers read from a pipe that this process and the
runner hold open, so they end after the runner has recorded how its runs ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil
import typer
from filelock import FileLock, Timeout

from conf.errors import LadderError, UserError
from conf.home import Home, disk_errors, home, protect, require_space
from conf.loading.deployments import load_deployments
from conf.login import login, login_file
from conf.secrets import without_user
from conf.served import Served, announce, lock_of, served, withdraw
from flows.serving.elapsed import Patience, elapsed
from flows.serving.embedded.server import look_at_database
from flows.serving.environment import AUTHENTICATION, answers, prepare_environment
from flows.serving.server_processes import (
    MLFLOW_AUTHENTICATION,
    address,
    check_authentication,
    listen,
    mlflow_child,
    ours,
    prefect_child,
    runner_child,
    warn_if_open,
)
from flows.serving.supervised import Child
from tasks.records.format import byte_size
from tasks.runtime.logs import log, show_logs
from tasks.tracking.client import OFF, is_server, tracking_uri

PREFECT_PORT, MLFLOW_PORT = 4200, 5000
PROBE_SECONDS, WATCH_SECONDS = 5.0, 0.5
RUNNER_SECONDS, SERVER_SECONDS = 14.0, 7.0  # timeouts of the end; each process allows itself a little less
TABLES = "from conf.home import home; from tasks.tracking.tracker import connect; connect(home())"


@dataclass
class Backend:
    """The processes and their addresses; the servers end when `lifeline`, an end of their pipe, is closed."""

    where: Served
    runner: Child
    prefect: Child | None
    mlflow: Child | None
    lifeline: int
    report: Path

    @property
    def children(self) -> list[Child]:
        """All processes, the last to end first."""
        return [child for child in (self.prefect, self.mlflow, self.runner) if child]


def serve(deployments: Path | None, host: str, prefect_port: int | None, mlflow_port: int | None, *, auth: bool = True) -> None:
    """Serve until Ctrl-C or SIGTERM; print the addresses where this home is served already.

    `auth`: whether the servers ask for the password of the home.

    Raises:
        UserError: The file, an address or the environment is wrong.
        LadderError: Something does not start, or dies too often.
    """
    load_deployments(deployments)  # a typo is answered at once
    place = home()
    require_space(place)
    protect(place)
    with disk_errors(place):
        lock = lock_of(place)
        (place.root / "logs").mkdir(exist_ok=True)
    try:
        lock.acquire(timeout=1)  # others hold it for a moment to test whether it is free
    except Timeout:
        up = served(place)
        where = f"already runs for {place.root}:\n{addresses(place, up)}" if up else f"is just starting for {place.root}"
        typer.echo(f"`ladder serve` {where}")
        return
    try:
        withdraw(place)
        show_logs()
        _serve(place, deployments, host, (prefect_port, mlflow_port), auth)
    finally:
        withdraw(place)
        lock.release()


def addresses(place: Home, up: Served) -> str:
    """The addresses, and where the password is, as indented lines."""
    mlflow = up.mlflow_ui or f"off: MLFLOW_TRACKING_URI={OFF}"
    rows = [("Prefect", up.prefect_ui), ("MLflow", mlflow), ("API", up.prefect_api), ("process", str(up.pid))]
    if up.prefect_login or up.mlflow_login:
        rows.append(("password", f"in {login_file(place)}: Prefect takes its line, MLflow takes it as the password of any user"))
    return "\n".join(f"  {name:<9}{value}" for name, value in rows)


def _serve(place: Home, deployments: Path | None, host: str, ports: tuple[int | None, int | None], auth: bool) -> None:
    prepare_environment(place)
    if not auth and not os.environ.get("PREFECT_API_URL"):
        for name in AUTHENTICATION:
            os.environ.pop(name, None)
    os.environ["LADDER_HOME"] = str(place.root)
    os.environ.setdefault("LADDER_ROOTS", os.pathsep.join([str(Path.cwd()), str(place.root)]))
    for journal in (place.root / "logs").glob("*.log"):
        journal.unlink()
    backend = _plan(place, deployments, host, ports, auth)
    signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))  # a closed terminal ends it in order, too
    try:
        _start(place, backend)
        announce(place, backend.where)
        typer.echo(f"Ladder is served, until Ctrl-C, for {place.root}:\n{addresses(place, backend.where)}")
        sys.stdout.flush()
        with suppress(psutil.Error):  # one has just died, and is restarted below
            log.info("memory: %s", _memory(backend))
        _watch(backend)
    except KeyboardInterrupt:
        log.info("ending; runs under way write a checkpoint first")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the end must not be interrupted
        withdraw(place)
        _end(backend)
    log.info("ended; nothing is left running")


def _plan(place: Home, deployments: Path | None, host: str, ports: tuple[int | None, int | None], auth: bool) -> Backend:
    given, store = os.environ.get("PREFECT_API_URL"), tracking_uri(place)
    check_authentication()
    password = (os.environ.get(AUTHENTICATION[0]) if not given else None) or login(place)
    own_accounts = bool(os.environ.get(MLFLOW_AUTHENTICATION))
    warn_if_open(host, prefect=not given and not auth, mlflow=store != OFF and not is_server(store) and not auth and not own_accounts)
    ends, lifeline = os.pipe()
    prefect = mlflow = None
    if given:
        if not answers(f"{given}/health", PROBE_SECONDS):
            allowed = "the API of a Prefect server that answers, such as http://127.0.0.1:4200/api"
            raise UserError.about("PREFECT_API_URL", given, allowed, "Start it, correct the variable, or unset it to have one started.")
        api, ui = given, os.environ.get("PREFECT_UI_URL") or given.rstrip("/").removesuffix("/api")
    else:
        listening = listen("--prefect-port", host, ports[0], PREFECT_PORT)
        port = listening.getsockname()[1]
        api, ui = f"{address(host, port)}/api", address(host, port, outside=True)
        prefect = prefect_child(place, host, listening, ends)
    if store == OFF:
        record = None
    elif is_server(store):
        record = without_user(store)
    else:
        listening = listen("--mlflow-port", host, ports[1], MLFLOW_PORT)
        record = address(host, listening.getsockname()[1], outside=True)
        mlflow = mlflow_child(place, host, listening, store, ends, password if auth and not own_accounts else None)
    report = place.root / "logs" / "runner.ready"
    report.unlink(missing_ok=True)
    runner = runner_child(place, deployments, api, report, [lifeline])
    own = auth and password == login(place)
    where = Served(os.getpid(), api, ui, record, own and bool(prefect), own and bool(mlflow) and not own_accounts)
    return Backend(where, runner, prefect, mlflow, lifeline, report)


def _start(place: Home, backend: Backend) -> None:
    names = ", ".join(child.name for child in backend.children)
    patience = Patience(lambda: [child.process.pid for child in backend.children if child.process and child.code is None])
    waiting = ["another server of this home, which is just starting"]
    # Concurrent migrations break a new database.
    with elapsed(names, lambda: f"waiting for {', '.join(waiting)}; {patience.work}"), FileLock(place.locks / "prefect.lock"):
        waiting[:] = ["MLflow's tables"]
        backend.runner.start()
        if backend.prefect:
            look_at_database(place)
            (place.prefect / "server.log").touch()  # from now on, a database that is gone is told
            backend.prefect.start()
        if tracking_uri(place) != OFF:
            _make_tables()
        if backend.mlflow:
            backend.mlflow.start()
        _wait(backend, patience, waiting)


def _wait(backend: Backend, patience: Patience, waiting: list[str]) -> None:
    """Wait until all are ready; `waiting` is kept as the list of those that are not.

    Raises:
        LadderError: One has ended, or they no longer get on.
    """
    while late := [child for child in backend.children if not child.ready()]:
        waiting[:] = [child.name for child in late]
        for child in late:
            if child.code is not None:
                _give_up(backend, child)
        if patience.is_over():
            raise LadderError(f"{late[0].name} is not ready, and has done nothing for {patience.seconds:.0f} s: {late[0].last_line()}")
        time.sleep(0.1)


def _give_up(backend: Backend, child: Child) -> NoReturn:
    if child is backend.runner and child.code == UserError.exit_code and backend.report.is_file():
        raise UserError(backend.report.read_text(encoding="utf-8"))
    raise LadderError(f"{child.name} did not start: {child.last_line()}")


def _make_tables() -> None:
    """Create MLflow's tables, or check its server, in a process that frees its memory when it ends."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", TABLES], env=ours(), capture_output=True, encoding="utf-8", errors="replace", start_new_session=True
    )
    if done.returncode:
        kind, _, text = (done.stderr.strip().splitlines() or ["no output"])[-1].partition(": ")
        raise (UserError if kind.endswith("UserError") else LadderError)(text or kind)


def _memory(backend: Backend) -> str:
    """Resident memory of each process, its children included."""
    families = {"this process": [psutil.Process()]}
    for child in backend.children:
        if child.process:
            own = psutil.Process(child.process.pid)
            families[child.name] = [own, *own.children(recursive=True)]
    sizes = {name: sum(process.memory_info().rss for process in family) for name, family in families.items()}
    return ", ".join(f"{name} {byte_size(size)}" for name, size in sizes.items())


def _watch(backend: Backend) -> NoReturn:
    while True:
        for child in backend.children:
            child.revive()
        time.sleep(WATCH_SECONDS)


def _end(backend: Backend) -> None:
    backend.runner.close()
    backend.runner.wait(RUNNER_SECONDS)
    os.close(backend.lifeline)
    for child in backend.children[:-1]:
        child.wait(SERVER_SECONDS)
