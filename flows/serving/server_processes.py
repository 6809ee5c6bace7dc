"""Processes of `ladder serve`: addresses, environments, passwords."""

from __future__ import annotations

import errno
import ipaddress
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from conf.errors import UserError
from conf.home import Home
from flows.serving.environment import AUTHENTICATION, answers
from flows.serving.supervised import Child
from tasks.runtime.logs import log

PROBE_SECONDS = 2.0
ROOT = Path(__file__).parents[2]
GUARD = [sys.executable, "-P", str(Path(__file__).with_name("parent_watchdog.py"))]
MLFLOW_AUTHENTICATION = "MLFLOW_AUTH_CONFIG_PATH"
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
# Host names that MLflow accepts by default; it refuses others unless they are listed.
PRIVATE = ["localhost", "127.0.0.1", "[[]::1]", "192.168.*", "10.*", *(f"172.{i}.*" for i in range(16, 32))]


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


def warn_if_open(host: str, *, prefect: bool, mlflow: bool) -> None:
    """Warn where other machines can reach a server of ours without a password."""
    needed = [(prefect, "Prefect", AUTHENTICATION[0], "user:password"), (mlflow, "MLflow", MLFLOW_AUTHENTICATION, "FILE")]
    missing = [(name, f"{variable}={value}") for ours, name, variable, value in needed if ours and not os.environ.get(variable)]
    if missing and not is_loopback(host):
        log.warning(
            "--host %s: whoever reaches this machine can use %s WITHOUT A PASSWORD, start trainings and read results. "
            "Set %s, or leave --host out",
            host,
            " and ".join(name for name, _ in missing),
            " and ".join(remedy for _, remedy in missing),
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
    """The environment of a process that imports this project, and nothing from the working directory, such as a folder `flows`."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": path, **more}


def prefect_child(home: Home, host: str, listening: socket.socket, lifeline: int) -> Child:
    """Prefect's server, with its pages and its scheduler, on the home's database."""
    port, descriptor = listening.getsockname()[1], listening.detach()  # never closed: the port stays ours while the server restarts
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
    }
    health = f"{address(host, port)}/api/health"
    journal, command = home.root / "logs" / "prefect.log", [*GUARD, str(descriptor)]
    return Child("Prefect's server", command, env, journal, lambda: answers(health, PROBE_SECONDS), lifeline, [descriptor])


def mlflow_child(home: Home, host: str, port: int, store: str, lifeline: int) -> Child:
    """MLflow's server, for its pages; runs write to the store itself."""
    name = socket.gethostname() if host in WILDCARDS else host
    hosts = [*PRIVATE, name]
    env = {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*hosts, *(f"{each}:*" for each in hosts if not each.endswith("*"))]),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store,  # not on the command line, where everybody could read a password
        "MLFLOW_LOGGING_LEVEL": "WARNING",
    }
    options = ["--host", host, "--port", str(port), "--workers", "1", "--artifacts-destination", str(home.mlflow / "artifacts")]
    if os.environ.get(MLFLOW_AUTHENTICATION):
        options += ["--app-name", "basic-auth"]
    health = f"{address(host, port)}/health"
    journal, command = home.root / "logs" / "mlflow.log", [*GUARD, "mlflow", "server", *options]
    return Child("MLflow's server", command, env, journal, lambda: answers(health, PROBE_SECONDS), lifeline)


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
