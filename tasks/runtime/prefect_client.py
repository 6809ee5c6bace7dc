"""Clients of the Prefect server that this process talks to, and its outages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import httpx
import prefect.context
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import SettingsContext, get_settings_context
from prefect.exceptions import PrefectException
from prefect.serializers import PickleSerializer
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from conf.errors import LadderError, RunCancelled, ServerAway
from conf.home import full_disk, home
from conf.served import configured_api
from tasks.runtime import cancellation

TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 1.0  # between two requests to a server that does not answer
AWAY = (httpx.HTTPError, PrefectException)  # errors of a client whose server is down or restarting


def _no_pickle(self: PickleSerializer[Any], blob: bytes) -> NoReturn:
    """Whoever may write to the server could name any file as the pickled result of a run, which Prefect's engine would read."""
    raise ValueError("Ladder reads no pickles; its results are JSON.")


PickleSerializer.loads = _no_pickle
gave_up_after: float | None = None  # seconds; None: this process still waits for a server that does not answer


def api_address() -> str | None:
    """Address of the API that this process talks to, that of an embedded server included; None where there is none yet."""
    return get_current_settings().api.url


@contextmanager
def without_retries() -> Iterator[None]:
    """No retries for the requests made within.

    `temporary_settings` would read the whole environment anew, 60 ms each time.
    """
    context = get_settings_context()
    client = context.settings.client.model_copy(update={"max_retries": 0})
    with SettingsContext(profile=context.profile, settings=context.settings.model_copy(update={"client": client})):
        yield


def fail_fast_client(stack: ExitStack, api: str | None = None) -> SyncPrefectClient:
    """A client with a short timeout and no retries; `api`: another server than this process talks to."""
    if api:
        stack.enter_context(temporary_settings({PREFECT_API_URL: api}))
    stack.enter_context(without_retries())
    return stack.enter_context(get_client(sync_client=True, httpx_settings={"timeout": TIMEOUT_SECONDS}))


def require_server() -> None:
    """Wait for a server that does not answer; called between two tasks, since the engine's next request would end the run.

    As long as Prefect's own client would wait (`PREFECT_CLIENT_MAX_RETRIES`), but the run continues a second after the server is back.

    Raises:
        ServerAway: It does not come back.
    """
    health, patience, began = f"{api_address()}/health", _patience(), time.monotonic()
    while not _answers(health):
        if time.monotonic() - began > patience:
            raise _given_up(patience)
        time.sleep(POLL_SECONDS)


def _answers(url: str) -> bool:
    """Whether a server answers at all; with the standard library, since a client of Prefect's takes 0.1 s to make."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=TIMEOUT_SECONDS):
            return True
    except HTTPError as error:
        return error.code < 500
    except OSError:  # down; or behind a proxy, or a certificate, that only Prefect's settings name
        with ExitStack() as stack:
            return fail_fast_client(stack).api_healthcheck() is None


def stop_waiting() -> None:
    """From now on nothing in this process waits for the server to come back."""
    global gave_up_after
    gave_up_after = _patience()
    for context in (get_settings_context(), prefect.context.GLOBAL_SETTINGS_CONTEXT):
        if context is not None:
            context.settings.client.max_retries = 0


def _patience() -> float:
    """Seconds to wait for a server that does not answer, as Prefect's own client would."""
    return gave_up_after or 2.0 ** (get_current_settings().client.max_retries + 1)


def _given_up(patience: float) -> ServerAway:
    """The error for a server that does not come back."""
    stop_waiting()
    where = configured_api() or "that is embedded in this run"
    return ServerAway(
        f"Prefect's server {where} has not answered for {patience:.0f} s. Finished models stay in the store and in MLflow; "
        "the same command goes on from there, once the server is back or with another one."
    )


def root_cause(error: BaseException) -> BaseException:
    """The error that ended a run, where Prefect's engine has raised its own because its server was away or failed."""
    links = [error]
    while (link := links[-1].__cause__ or links[-1].__context__) is not None and not any(link is each for each in links):
        links.append(link)
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
    failed = status >= 500  # the server answers, but can do nothing
    ours = (ServerAway, RunCancelled, KeyboardInterrupt)
    for kinds in (ours, (LadderError,)) if failed else (ours,):
        for link in links:
            if isinstance(link, kinds):
                return link
    if isinstance(error, httpx.TransportError):  # the server failed during a request of the engine's
        return cancellation.stopped() if cancellation.ends_the_run() else _given_up(_patience())
    if failed:
        return full_disk(home()) or _broken(status)
    return error


def _broken(status: int) -> ServerAway:
    """The error for a server that fails."""
    where = configured_api() or "that is embedded in this run"
    return ServerAway(
        f"Prefect's server {where} failed (HTTP {status}); its log says why. Finished models stay in the store and in MLflow; "
        "the same command goes on from there."
    )
