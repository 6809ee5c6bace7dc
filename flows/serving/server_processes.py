"""Processes of `ladder serve`: addresses, environments, passwords."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from conf.errors import UserError
from conf.home import Home
from flows.serving.environment import answers
from flows.serving.guard.access_checks import ANY_ADDRESS
from flows.serving.guard.access_checks import VARIABLE as ACCESS
from flows.serving.supervised import Child
from tasks.runtime.logs import log
from tasks.tracking.server import ASSISTANT

PROBE_SECONDS = 2.0
ROOT = Path(__file__).parents[2]
GUARD = [sys.executable, "-P", str(Path(__file__).with_name("guard") / "parent_watchdog.py")]
MLFLOW_AUTHENTICATION = "MLFLOW_AUTH_CONFIG_PATH"
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def listen(option: str, host: str, wanted: int | None, usual: int) -> socket.socket:
    """A socket on the wanted port; where none is wanted, on the usual one, else on any free one.

    Raises:
        UserError: The port is in use, or the host is not an address of this machine.
    """
    for port in (usual, 0) if wanted is None else (wanted,):
        try:
            return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                remedy = f"{error.strerror}. Leave it out to serve this machine alone."
                raise UserError.about("--host", host, "an address of this machine, such as 127.0.0.1 or 0.0.0.0", remedy) from None
            if port == wanted:
                raise UserError.about(option, port, "a port that is free", f"{error.strerror}. Leave it out to have one chosen.") from None
    raise AssertionError("port 0 is always free")


def address(host: str, port: int, *, outside: bool = False) -> str:
    """URL of a server that listens at `host`: for this machine, or for others."""
    name = host
    if host in WILDCARDS:
        name = socket.gethostname() if outside else WILDCARDS[host]
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def hosts_of(host: str) -> list[str]:
    """Names and addresses under which a server that listens at `host` answers, and those of `LADDER_HOSTS`."""
    own = [socket.gethostname(), ANY_ADDRESS] if host in WILDCARDS else [host]
    more = [name.strip() for name in os.environ.get("LADDER_HOSTS", "").split(",")]
    return list(dict.fromkeys(filter(None, ["localhost", "127.0.0.1", "::1", *own, *more])))


def warn_if_open(host: str, *, prefect: bool, mlflow: bool) -> None:
    """Warn of servers without a password, and of traffic that a password alone does not hide."""
    names = " and ".join(name for name, is_open in (("Prefect", prefect), ("MLflow", mlflow)) if is_open)
    who = "every user of this machine" if is_loopback(host) else "whoever reaches this machine"
    if names:
        log.warning("%s can use %s WITHOUT A PASSWORD: start trainings as you, read results, change and delete records", who, names)
    if not is_loopback(host):
        log.warning(
            "--host %s: passwords and data cross the network unencrypted; put a proxy with TLS in front, or use an SSH tunnel", host
        )


def check_authentication() -> None:
    """Check that MLflow's authentication is installed where it is configured.

    Raises:
        UserError: It is not installed.
    """
    wanted = os.environ.get(MLFLOW_AUTHENTICATION)
    if wanted and find_spec("flask_wtf") is None:
        allowed, remedy = "MLflow with its extra `auth`", "Install it with `pip install 'mlflow[auth]'`, or unset the variable."
        raise UserError.about(MLFLOW_AUTHENTICATION, wanted, allowed, remedy)


def ours(**more: str) -> dict[str, str]:
    """The environment of a process that imports this project, and nothing from the working directory."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": path, **more}


def prefect_child(home: Home, host: str, listening: socket.socket, lifeline: int) -> Child:
    """Prefect's server, with its pages and its scheduler, on the home's database; it asks for the password itself."""
    port = listening.getsockname()[1]
    pages = address(host, port, outside=True)
    env = {
        # Pages of other origins in the same browser must not call the API; and the address of the API for its own pages.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(sorted({pages, f"http://localhost:{port}", f"http://127.0.0.1:{port}"})),
        "PREFECT_UI_API_URL": f"{pages}/api",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # several runs write at once, and SQLite lets one at a time
        **os.environ,
        "PREFECT__SERVER_FINAL": "1",
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",  # into its own log
        **access(host),
    }
    return _server("Prefect's server", "prefect", env, home, f"{address(host, port)}/api/health", listening, lifeline)


def mlflow_child(home: Home, host: str, listening: socket.socket, store: str, lifeline: int, password: str | None) -> Child:
    """MLflow's server, for its pages; runs write to the store itself.

    `password`: what the access checks ask for; None: MLflow asks by its own accounts, or nobody does.
    """
    port, hosts = listening.getsockname()[1], hosts_of(host)
    names = ["*"] if ANY_ADDRESS in hosts else [f"[[]{name}]" if ":" in name else name for name in hosts]
    env = {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*names, *(f"{each}:*" for each in names)]),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        **ours(),
        "MLFLOW_BACKEND_STORE_URI": store,  # not on the command line, where everybody could read a password
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        **access(host, password=password, open_paths=["/health", "/version"], closed=[ASSISTANT]),
    }
    return _server("MLflow's server", "mlflow", env, home, f"{address(host, port)}/health", listening, lifeline)


def access(host: str, **checks: object) -> dict[str, str]:
    """The environment of a server with the checks that stand before it."""
    return {ACCESS: json.dumps({"hosts": hosts_of(host), **checks})}


def _server(name: str, kind: str, env: dict[str, str], home: Home, health: str, listening: socket.socket, lifeline: int) -> Child:
    descriptor = listening.detach()  # never closed: the port stays ours while the server restarts
    command = [*GUARD, kind, str(descriptor)]
    return Child(name, command, env, home.root / "logs" / f"{kind}.log", lambda: answers(health, PROBE_SECONDS), lifeline, [descriptor])


def runner_child(home: Home, deployments: Path | None, api: str, report: Path, lifelines: Sequence[int]) -> Child:
    """The process that registers the deployments and starts flow runs; it writes `ready` into `report`."""
    # Its log lines, and those of its runs, go into its own file.
    env = ours(PREFECT_API_URL=api, PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL="INFO", PYTHONUNBUFFERED="1")
    journal = home.root / "logs" / "runner.log"
    command = [
        sys.executable,
        "-m",
        "flows.serving.flow_runner",
        str(deployments.absolute()) if deployments else "",
        api,
        str(report),
        str(journal),
    ]

    def ready() -> bool:
        return report.is_file() and report.read_text(encoding="utf-8") == "ready"

    return Child("the runner", command, env, journal, ready, descriptors=lifelines, outlived=True)
