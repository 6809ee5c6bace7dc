"""What `ladder serve` has put up in a home, for everyone who wants to use it. Cheap: neither Prefect nor MLflow is imported."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from conf.home import Home
from conf.locks import is_held


@dataclass(frozen=True)
class Served:
    """The addresses of a home's servers.

    Attributes:
        pid: Process of `ladder serve`.
        prefect_api: Of Prefect's API.
        prefect_ui: Of Prefect's pages.
        mlflow_ui: Of MLflow's pages; none if `MLFLOW_TRACKING_URI` names a server that has none of its own here.
    """

    pid: int
    prefect_api: str
    prefect_ui: str
    mlflow_ui: str | None


def lock_of(home: Home) -> FileLock:
    """The lock that `ladder serve` holds as long as it lives; the kernel lets it go when the process dies."""
    home.locks.mkdir(parents=True, exist_ok=True)
    return FileLock(home.locks / "serve.lock")


def served(home: Home) -> Served | None:
    """What is served for this home now; None while nothing is, or while it is still starting."""
    try:
        found = Served(**json.loads(_place(home).read_text()))
    except (OSError, ValueError, TypeError):
        return None  # not there, or of another version
    return found if is_held(Path(lock_of(home).lock_file)) else None  # else its process died without a word


def announce(home: Home, what: Served) -> None:
    """Write down what is served, whole or not at all."""
    aside = _place(home).with_suffix(".writing")
    aside.write_text(json.dumps(asdict(what), indent=1))
    aside.replace(_place(home))


def withdraw(home: Home) -> None:
    """Forget what was served."""
    _place(home).unlink(missing_ok=True)


def _place(home: Home) -> Path:
    return home.root / "serve.json"
