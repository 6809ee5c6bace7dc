"""Open MLflow: address, tables, set-up lock, and errors in one sentence."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from conf.errors import LadderError, RecordUnavailable, StoreError, UserError
from conf.home import Home, disk_errors, sqlite_address
from conf.secrets import masked, without_user
from tasks.runtime.empty_databases import begin_database
from tasks.runtime.runs.run_registry import list_runs
from tasks.runtime.sqlite_files import look_at

if TYPE_CHECKING:
    from mlflow import MlflowClient

OFF = "none"  # as MLFLOW_TRACKING_URI
ADDRESS = "an MLflow server that answers, or a database URI such as sqlite:///file.db"
PROBE_SECONDS = 5
LOCK_SECONDS = 300
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",  # of alembic, too
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow would try each request for minutes; tasks/tracking/recorder.py decides which calls may wait, and for how long.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
# Libraries whose errors mean that MLflow, its database or its object store did not take something.
LIBRARIES = {"mlflow", "requests", "urllib3", "sqlalchemy", "botocore", "boto3", "azure", "google"}
RACE = ("UNIQUE constraint failed", "duplicate key value", "Duplicate entry")  # SQLite, PostgreSQL, MySQL
RETRYABLE = {408, 429}  # of the HTTP codes below 500, those that pass


class RecordRefused(RecordUnavailable):
    """MLflow refused; a retry is of no use."""


def tracking_uri(home: Home) -> str:
    """`MLFLOW_TRACKING_URI` when it is set, else the SQLite file under `home`; `OFF`: runs are not recorded in MLflow."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_address(home.mlflow / "mlflow.db")


def ui_command(uri: str) -> str:
    """Shell command that shows a database, or the address of a server."""
    uri = masked(uri)
    return uri if is_server(uri) else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"


def run_url(base: str, experiment_id: str, run_id: str) -> str:
    """Address of a run's page on the MLflow server at `base`, without the user's name and password.

    MLflow has two halves; without the last part its pages open the one for chat traces, where no run is listed.
    """
    plain = without_user(base).rstrip("/")
    return f"{plain}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def is_server(uri: str) -> bool:
    """Whether a tracking URI is that of a server, with its own place for artifacts."""
    return uri.startswith(("http://", "https://"))


def first_line(error: Exception) -> str:
    """The first line of an error's message, without passwords, at most 300 characters."""
    return masked(next(iter(str(error).strip().splitlines()), type(error).__name__))[:300]


def is_permanent(error: Exception) -> bool:
    """Whether a retry would fail alike: a refusal by MLflow, not a race."""
    from mlflow.exceptions import MlflowException

    if is_race(error):
        return False
    response = getattr(error, "response", None)
    status = error.get_http_status_code() if isinstance(error, MlflowException) else getattr(response, "status_code", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in RETRYABLE


def is_race(error: Exception) -> bool:
    """Whether two processes inserted the same row at once: MLflow looks it up first, and has no lock between."""
    return any(words in str(error) for words in RACE)


@contextmanager
def translate_errors(home: Home, uri: str) -> Iterator[None]:
    """Translate errors of MLflow, the network and the disk into one sentence.

    Raises:
        RecordUnavailable: MLflow did not take it; `RecordRefused` if it will not take it the next time either.
        StoreError: The disk under `home` is full or cannot be written.
    """
    try:
        with nullcontext() if is_server(uri) else disk_errors(home):  # a server's full disk is not ours
            yield
    except Exception as error:
        if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.partition(".")[0] in LIBRARIES:
            kind = RecordRefused if is_permanent(error) else RecordUnavailable
            raise kind(f"MLflow at {masked(uri)} did not take it: {_reason(error)}") from None
        if isinstance(error, OSError):
            raise StoreError(f"The record in MLflow ({masked(uri)}) could not be written: {error}.") from None
        raise


def _reason(error: Exception) -> str:
    message = str(error)
    for words, meaning in (("refused", "connection refused"), ("timed out", "no answer in time"), ("reset by peer", "connection lost")):
        if words in message and not is_permanent(error):
            return meaning
    return first_line(error)


@contextmanager
def setup_lock(home: Home) -> Iterator[None]:
    """Lock for making tables or an experiment, which concurrent processes would break."""
    from filelock import FileLock, Timeout

    with disk_errors(home):
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
        UserError: `MLFLOW_TRACKING_URI` is `none`, or names nothing that answers as MLflow.
    """
    if uri == OFF:
        remedy = "This needs MLflow: unset the variable to use the record under LADDER_HOME."
        raise UserError.about("MLFLOW_TRACKING_URI", OFF, ADDRESS, remedy)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if is_server(uri):
            probe(uri)
            return MlflowClient(uri)
        home.mlflow.mkdir(parents=True, exist_ok=True)
        with setup_lock(home):
            if (file := make_url(uri)).get_backend_name() == "sqlite" and file.database:
                look_at(Path(file.database), "MLflow's database", lambda: _recorded(home, uri))
                begin_database(Path(file.database), "mlflow")
            client = MlflowClient(uri)
            client.search_registered_models(max_results=1)  # the registry's tables are made apart from the runs'
            return client
    except (MlflowException, SQLAlchemyError, ImportError) as error:  # ImportError: the driver of a database
        if os.environ.get("MLFLOW_TRACKING_URI"):
            raise _bad_address(uri, first_line(error)) from None
        remedy = "It is healthy: try again later." if "locked" in str(error) else "Move the file away to begin anew."
        raise LadderError(f"The record in MLflow ({uri}) does not open: {first_line(error)}. {remedy}") from None
    except OSError as error:
        raise StoreError(f"The record in MLflow ({uri}) could not be written: {error}.") from None


def _recorded(home: Home, uri: str) -> bool:
    """Whether a run of this home is recorded there."""
    return any(record.mlflow_uri == masked(uri) and record.mlflow_run_id for record in list_runs(home))


def probe(uri: str) -> None:
    """Ask a server once, for a few seconds, to detect one that is away or hangs."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    http_request(get_default_host_creds(uri), "/health", "GET", max_retries=0, timeout=PROBE_SECONDS, raise_on_status=False)


def _bad_address(uri: str, reason: str) -> UserError:
    remedy = f"MLflow said: {reason} Start the server, correct the variable, or unset it to keep the record under LADDER_HOME."
    return UserError.about("MLFLOW_TRACKING_URI", masked(uri), f"{ADDRESS}, or {OFF}", remedy)
