"""Addresses of the servers that `ladder serve` runs for a home.

Cheap: neither Prefect nor MLflow is imported.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from conf.atomic import write_atomic
from conf.home import Home
from conf.locks import is_held

EMBEDDED_API = "LADDER_EMBEDDED_API"  # variable of this process: the address of its embedded server


def configured_api() -> str | None:
    """Address of the API of a Prefect server that somebody has started; None where this process uses an embedded one, or none yet."""
    given = os.environ.get("PREFECT_API_URL")
    return given if given and given != os.environ.get(EMBEDDED_API) else None


@dataclass(frozen=True)
class Served:
    """The addresses of a home's servers.

    Attributes:
        pid: Process of `ladder serve`.
        prefect_api: Of Prefect's API.
        prefect_ui: Of Prefect's pages.
        mlflow_ui: Of MLflow's pages; None: `MLFLOW_TRACKING_URI` turns MLflow off.
        prefect_login: Whether Prefect's server asks for the home's own password (`conf.login`).
        mlflow_login: Whether MLflow's server does.
    """

    pid: int
    prefect_api: str
    prefect_ui: str
    mlflow_ui: str | None
    prefect_login: bool
    mlflow_login: bool


def lock_of(home: Home) -> FileLock:
    """The lock that `ladder serve` holds as long as it lives; the kernel releases it when the process dies."""
    home.locks.mkdir(parents=True, exist_ok=True)
    return FileLock(home.locks / "serve.lock")


def served(home: Home) -> Served | None:
    """The servers of this home; None where there are none, or while they start."""
    try:
        stored = Served(**json.loads(_path(home).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # no such file, or of another version
    return stored if is_held(Path(lock_of(home).lock_file)) else None  # where its process was killed


def announce(home: Home, addresses: Served) -> None:
    """Write the addresses, atomically."""
    write_atomic(_path(home), json.dumps(asdict(addresses), indent=1))


def withdraw(home: Home) -> None:
    """Remove the addresses."""
    _path(home).unlink(missing_ok=True)


def _path(home: Home) -> Path:
    return home.root / "serve.json"
