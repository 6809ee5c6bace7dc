"""Environment variables for Prefect, MLflow and the hub.

Set before any of them is imported; values of the user are kept.
"""

from __future__ import annotations

import os

from conf.errors import UserError
from conf.home import Home, disk_errors, protect, sqlite_address
from conf.login import login
from conf.native import ALLOCATOR, OPENMP
from conf.secrets import masked, without_user
from conf.served import Served, served

OFFLINE = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_OFFLINE": "1",
}
PREFECT = {
    # Our own lines go to the terminal and to Prefect's run logs; Prefect's own, with their tracebacks, only to the run logs.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "ladder",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    # A loaded machine needs more than the default 20 seconds to bring the embedded server up.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    # Two minutes in all, so that requests made while the server is away for a minute still arrive; the default is one minute.
    "PREFECT_CLIENT_MAX_RETRIES": "6",
    "PREFECT_CLI_COLORS": "false",
}
# Errors that MLflow raises become one line of ours; it would also log the traceback, as of a database error when Ctrl-C meets a write.
MLFLOW = {"MLFLOW_LOGGING_LEVEL": "CRITICAL"}
# Where no `ladder serve` watches, heartbeats tell that a run is alive: docs/how-to/deploying/silent-runs.yaml.
HEARTBEAT = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
AUTHENTICATION = ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")
PROBE_SECONDS = 15.0  # a served Prefect that restarts accepts connections before it answers


def answers(url: str, seconds: float) -> bool:
    """Whether a server's health address answers 200."""
    import httpx

    try:
        return httpx.get(url, timeout=seconds, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def go_offline() -> None:
    """Turn the hub and telemetry off for the rest of this process, even where the user has turned them on."""
    os.environ.update(OFFLINE)


def for_runs() -> dict[str, str]:
    """Variables of a run on another machine's worker: Prefect reads them before our code is imported."""
    return {**OFFLINE, **PREFECT, **MLFLOW, **HEARTBEAT, **OPENMP, **ALLOCATOR}


def prepare_environment(home: Home) -> None:
    """Set defaults of variables: telemetry off, hub off, Prefect's server that of `ladder serve`, else its state under `home`.

    The home is closed to other users, and its password is set for the servers of this home, and for no others.

    Raises:
        StoreError: The home cannot be made.
    """
    refuse_user_in_address()
    protect(home)
    wanted = {**OFFLINE, **PREFECT, **MLFLOW, "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    if os.environ.get("HF_HUB_OFFLINE") == "0":
        wanted["HF_DATASETS_OFFLINE"] = "0"
    up, given = served(home), os.environ.get("PREFECT_API_URL")
    own = not given  # whether the server is one of this home
    if not given:
        wanted["PREFECT_HOME"] = str(home.prefect)
        address = sqlite_address(home.prefect / "prefect.db", "sqlite+aiosqlite")
        if address.endswith("?uri=true") and not os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL"):
            wanted["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = address  # Prefect's own does not quote
        with disk_errors(home):
            home.prefect.mkdir(parents=True, exist_ok=True)  # Prefect makes one level only
        if up and _answers_as(up):
            wanted["PREFECT_API_URL"], own = up.prefect_api, up.prefect_login
    elif up and up.prefect_api == given:
        own = up.prefect_login
    # The server's password is the client's too: one of the two variables suffices.
    for mine, other in (AUTHENTICATION, AUTHENTICATION[::-1]):
        if os.environ.get(other):
            wanted[mine], own = os.environ[other], False
    if own:
        with disk_errors(home):
            wanted |= dict.fromkeys(AUTHENTICATION, login(home))
    if up and up.mlflow_login and os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/") == up.mlflow_ui:
        wanted["MLFLOW_TRACKING_USERNAME"], _, wanted["MLFLOW_TRACKING_PASSWORD"] = login(home).partition(":")
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def refuse_user_in_address() -> None:
    """Refuse a password in Prefect's address, which is logged and recorded.

    Raises:
        UserError: `PREFECT_API_URL` contains a user name.
    """
    given = os.environ.get("PREFECT_API_URL", "")
    if without_user(given) != given:
        remedy = "Set PREFECT_API_AUTH_STRING=user:password instead."
        raise UserError.about("PREFECT_API_URL", masked(given), "an address without a user's name and password", remedy)


def _answers_as(up: Served) -> bool:
    if answers(f"{up.prefect_api}/health", PROBE_SECONDS):
        return True
    from tasks.runtime.logs import log

    log.warning("Prefect's server at %s, of `ladder serve`, does not answer; this process starts its own", up.prefect_api)
    return False
