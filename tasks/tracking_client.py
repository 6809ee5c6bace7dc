"""How Ladder reaches MLflow: which record, opened by one process at a time, quietly, and refused at once when it does not answer."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from conf.errors import LadderError, StoreError, UserError
from conf.home import Home

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROBE_SECONDS = 5
LOCK_SECONDS = 300
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",  # of alembic, too
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def tracking_uri(home: Home) -> str:
    """`MLFLOW_TRACKING_URI` when it is set, else the SQLite file under `home`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.mlflow / 'mlflow.db'}"


def ui_command(uri: str) -> str:
    """What a user types to look at the record: a command for a database, a server's own address otherwise."""
    return uri if is_server(uri) else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"


def run_url(base: str, experiment_id: str, run_id: str) -> str:
    """Address of a run's page on the MLflow server at `base`."""
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def is_server(uri: str) -> bool:
    """Whether a tracking URI is that of a server, which has its own place for artifacts."""
    return uri.startswith(("http://", "https://"))


def first_line(error: Exception) -> str:
    """The first line of what an error says, at most 300 characters."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


@contextmanager
def turn(home: Home) -> Iterator[None]:
    """Wait for this process's turn to make tables or an experiment: processes that start together on a fresh file break it."""
    from filelock import FileLock, Timeout

    home.locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home.locks / "mlflow.lock", timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise LadderError(f"{lock.lock_file} was held by another process for {LOCK_SECONDS} s; end that process.") from None
    try:
        yield
    finally:
        lock.release()


def open_client(home: Home, uri: str) -> MlflowClient:
    """Open MLflow at `uri`, and make its tables first where they are not there.

    Processes that start together on a fresh SQLite file break it, so they take turns.

    Raises:
        UserError: `MLFLOW_TRACKING_URI` names nothing that answers as MLflow.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if is_server(uri):
            _probe(uri)
            return MlflowClient(uri)
        home.mlflow.mkdir(parents=True, exist_ok=True)
        with turn(home):
            client = MlflowClient(uri)
            client.search_registered_models(max_results=1)  # the registry's tables are made apart from the runs'
            return client
    except (MlflowException, SQLAlchemyError, ImportError) as error:  # ImportError: the driver of a database
        if os.environ.get("MLFLOW_TRACKING_URI"):
            raise _refused(uri, first_line(error)) from None
        raise LadderError(f"The record in MLflow ({uri}) does not open: {first_line(error)}. Move the file away to begin anew.") from None
    except OSError as error:
        raise StoreError(f"The record in MLflow ({uri}) could not be written: {error}.") from None


def _probe(uri: str) -> None:
    """Ask the server once, without the minutes of retries that suit a running ladder and not a mistyped address."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    http_request(get_default_host_creds(uri), "/health", "GET", max_retries=0, timeout=PROBE_SECONDS, raise_on_status=False)


def _refused(uri: str, reason: str) -> UserError:
    remedy = f"MLflow said: {reason} Start the server, correct the variable, or unset it to keep the record under LADDER_HOME."
    return UserError.about("MLFLOW_TRACKING_URI", uri, "an MLflow server that answers, or a database URI such as sqlite:///file.db", remedy)
