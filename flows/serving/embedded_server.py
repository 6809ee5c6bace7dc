"""Prefect's server of a run: the configured one, or an embedded one.

The embedded one lives as long as this process. Prefect's own would survive a kill of this process, and would end at a Ctrl-C before the
run has recorded its end, so that the run waits for minutes for a server that is gone.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from conf.errors import LadderError, UserError
from conf.home import Home, disk_errors
from flows.serving.elapsed import elapsed
from flows.serving.server_processes import access

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.server.api.server import SubprocessASGIServer

PROBE_SECONDS = 5.0
START_SECONDS = 120.0


def reach_server(home: Home) -> str | None:
    """Check the configured server, or start the embedded one.

    That of `ladder serve` counts as configured: `flows.serving.environment.prepare_environment` sets it.

    Returns:
        Address of the API of the configured server; None for the embedded one.

    Raises:
        UserError: Nothing answers as Prefect at `PREFECT_API_URL`.
        LadderError: The embedded server does not start.
    """
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url:
        check_server(url)
        return url
    start_embedded(home)
    return None


def check_server(url: str) -> None:
    """Check a configured server once, without retries, which suit a running ladder and not a mistyped address.

    Raises:
        UserError: It does not answer as Prefect.
    """
    from prefect.client.orchestration import get_client

    from tasks.runtime.prefect_client import without_retries

    with (
        without_retries(),
        get_client(sync_client=True, httpx_settings={"timeout": PROBE_SECONDS}) as client,
    ):
        error = client.api_healthcheck()
        if error is None:  # which needs no password
            _log_in(client, url)
    if error is not None:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        remedy = f"It answered: {reason}. Start it with `prefect server start`, correct the variable, or unset it for an embedded server."
        raise UserError.about("PREFECT_API_URL", url, "the API of a Prefect server that answers, such as http://127.0.0.1:4200/api", remedy)


def _log_in(client: SyncPrefectClient, url: str) -> None:
    from httpx import HTTPStatusError
    from prefect.settings import get_current_settings

    try:
        client.api_version()
    except HTTPStatusError as error:
        if error.response.status_code not in (401, 403):
            raise
        allowed, remedy = f"the user:password that {url} asks for", "Set it as it was set for that server."
        given = "(not shown)" if get_current_settings().api.auth_string else None
        raise UserError.about("PREFECT_API_AUTH_STRING", given, allowed, remedy) from None


def start_embedded(home: Home) -> None:
    """Start the embedded server and make it the one that Prefect's client uses; processes of one home take turns.

    Raises:
        LadderError: It does not start, or not in time.
        StoreError: The disk is full.
    """
    from filelock import FileLock
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()  # one for the whole process: clients find it by making it again
    if server.running:
        return
    with disk_errors(home):
        home.locks.mkdir(parents=True, exist_ok=True)
        home.prefect.mkdir(parents=True, exist_ok=True)
        with (
            elapsed("Prefect's embedded server"),
            FileLock(home.locks / "prefect.lock"),
        ):  # concurrent migrations break a new database
            _start(server, home.prefect / "server.log")


def _start(server: SubprocessASGIServer, log: Path) -> None:
    from prefect.settings import get_current_settings

    own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}  # as Prefect's own does
    own |= access("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listening, log.open("ab") as errors:
        server.port = listening.getsockname()[1]
        server.server_process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("parent_watchdog.py")), "prefect", str(listening.fileno())],
            env={**os.environ, **own, **get_current_settings().to_environment_variables(exclude_unset=True)},
            stdin=subprocess.PIPE,  # nothing is ever written; end of file means that this process is gone
            stdout=errors,
            stderr=errors,
            pass_fds=[listening.fileno()],
            start_new_session=True,
        )
    server.running = True
    atexit.register(server.stop)
    _wait(server, log)


def _wait(server: SubprocessASGIServer, log: Path) -> None:
    import httpx

    process, until = server.server_process, time.monotonic() + START_SECONDS
    assert process is not None
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{server.api_url}/health", timeout=1.0, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    reason = f"it ended with code {process.returncode}" if process.poll() is not None else f"no answer in {START_SECONDS:.0f} s"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise LadderError(f"Prefect's embedded server did not start: {reason}. The last line of {log}: {lines[-1] if lines else 'none'}")
