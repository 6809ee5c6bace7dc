"""The Prefect server of a run: a configured one that answers, or an embedded one that cannot outlive this process."""

from __future__ import annotations

import subprocess
import sys

from conf.errors import LadderError, UserError
from conf.home import Home, disk_errors

PROBE_SECONDS = 5.0
# A process that is killed outright runs no clean-up. This one waits for the end of its input, which the kernel closes then.
# It knows the server by more than its number, which another process may have by that time.
GUARD = """
import sys, psutil
try:
    server = psutil.Process(int(sys.argv[1]))
    sys.stdin.read()
    server.terminate()
    server.wait(10)
except psutil.NoSuchProcess:
    pass
except psutil.TimeoutExpired:
    server.kill()
"""


def reach_server(home: Home) -> str | None:
    """Make sure that Prefect has a server to talk to, and start the embedded one if none is configured.

    Returns:
        Address of the API of a configured server; None for the embedded one.

    Raises:
        UserError: `PREFECT_API_URL` names nothing that answers as Prefect.
        LadderError: The embedded server does not start.
    """
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url:
        ask_server(url)
        return url
    _start_embedded(home)
    return None


def ask_server(url: str) -> None:
    """Ask a configured server once, without the retries that suit a running ladder and not a mistyped address.

    Raises:
        UserError: It does not answer as Prefect.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True, httpx_settings={"timeout": PROBE_SECONDS}) as client,
    ):
        error = client.api_healthcheck()
    if error is not None:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        remedy = (
            f"It answered: {reason}. Start it with `prefect server start`, correct the variable, or unset it to use an embedded server."
        )
        raise UserError.about("PREFECT_API_URL", url, "the API of a Prefect server that answers, such as http://127.0.0.1:4200/api", remedy)


def _start_embedded(home: Home) -> None:
    """Start the server that Prefect would start by itself, and bind its life to ours."""
    with disk_errors(home):  # Prefect would try for ever to start a server that cannot write its database
        home.prefect.mkdir(parents=True, exist_ok=True)
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    try:
        server.start()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise LadderError(
            f"Prefect's embedded server did not start: {reason} Its state is in {home.prefect}; `ladder doctor` tells more."
        ) from error
    assert server.server_process is not None
    guard = [sys.executable, "-c", GUARD, str(server.server_process.pid)]
    quiet = subprocess.DEVNULL
    _guards.append(subprocess.Popen(guard, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True))


_guards: list[subprocess.Popen[bytes]] = []  # held until the process ends, so that their input stays open till then
