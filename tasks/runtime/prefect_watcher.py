"""A run's second thread: it shows the run's progress in Prefect, hears of its cancellation, and bears that the server is away."""

from __future__ import annotations

import contextvars
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import SettingsContext, get_settings_context
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, get_current_settings, temporary_settings

from conf.errors import RunCancelled, ServerAway
from tasks.runtime import cancellation as stopping
from tasks.runtime.logs import log
from tasks.runtime.progress import BOARD, Shown

POLL_SECONDS = 2.0
TIMEOUT_SECONDS = 5.0
gone: float | None = None  # seconds after which this process has given up its server, if it has
AWAY = (httpx.HTTPError, PrefectException)  # what a client raises whose server is away, or is being restarted


def api_address() -> str | None:
    """Address of the API that this process talks to, its own embedded server's included; None where there is none yet."""
    if url := get_current_settings().api.url:
        return url
    from prefect.server.api.server import SubprocessASGIServer  # takes two seconds, where nobody else has imported it

    server = SubprocessASGIServer()
    return server.api_url if server.running else None


@contextmanager
def asked_once() -> Iterator[None]:
    """No retries for the requests made within.

    `temporary_settings` would read the whole environment anew, 60 ms each time.
    """
    context = get_settings_context()
    client = context.settings.client.model_copy(update={"max_retries": 0})
    with SettingsContext(profile=context.profile, settings=context.settings.model_copy(update={"client": client})):
        yield


def brief_client(stack: ExitStack, api: str | None = None) -> SyncPrefectClient:
    """A client that asks once and does not wait long; `api`: another server than this process talks to."""
    if api:
        stack.enter_context(temporary_settings({PREFECT_API_URL: api}))
    stack.enter_context(asked_once())
    return stack.enter_context(get_client(sync_client=True, httpx_settings={"timeout": TIMEOUT_SECONDS}))


class Watch(AbstractContextManager["Watch"]):
    """Watches from its beginning to its end over one flow run; its subflows send no heartbeats, which would cost each a second."""

    def __init__(self, flow_run_id: UUID) -> None:
        self.flow_run_id = flow_run_id
        self.over = threading.Event()
        self.away_since: float | None = None
        self.told = False
        self.shown: dict[int, tuple[UUID, Shown]] = {}  # place on the board -> artifact, and what it shows
        self.thread = threading.Thread(target=contextvars.copy_context().run, args=(self._run,), name="ladder-watch", daemon=True)
        self.stack = ExitStack()

    def __enter__(self) -> Watch:
        BOARD.clear()
        stopping.begin(self.cancelled)
        self.thread.start()
        self.stack.enter_context(temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.over.set()
        self.thread.join(2 * TIMEOUT_SECONDS)
        self.stack.close()

    def cancelled(self) -> bool:
        """Whether somebody has cancelled the flow run, as far as its server can be asked."""
        try:
            with ExitStack() as stack:
                return self._asked_to_end(brief_client(stack))
        except httpx.TransportError:
            stop_waiting()  # or the engine would, for minutes, while a person waits for the end of the run
            return False
        except AWAY:
            return False

    def _run(self) -> None:
        with ExitStack() as stack:
            client = brief_client(stack)
            while not self.over.wait(POLL_SECONDS):
                self._look(client)
            self._look(client)

    def _look(self, client: SyncPrefectClient) -> None:
        try:
            if self._asked_to_end(client) and not self.over.is_set():
                stopping.cancel()
            self._show(client)
        except AWAY as error:
            self._away(error)
        else:
            if self.told and self.away_since is not None:
                log.info("Prefect's server answers again, after %.0f s", time.monotonic() - self.away_since)
            self.away_since, self.told = None, False

    def _asked_to_end(self, client: SyncPrefectClient) -> bool:
        state = client.read_flow_run(self.flow_run_id).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())

    def _show(self, client: SyncPrefectClient) -> None:
        for place, item in enumerate(BOARD):
            now = replace(item)  # the loop goes on writing
            known = self.shown.get(place)
            if known is None:
                made = ArtifactCreate(
                    key=now.key,
                    type="progress",
                    description=now.description,
                    data=now.percent,
                    flow_run_id=now.flow_run_id,
                    task_run_id=now.task_run_id,
                )
                self.shown[place] = client.create_artifact(made).id, now
            elif known[1] != now:
                client.update_artifact(known[0], ArtifactUpdate(data=now.percent, description=now.description))
                self.shown[place] = known[0], now

    def _away(self, error: Exception) -> None:
        if self.away_since is None:
            self.away_since = time.monotonic()
        elif not self.told:
            self.told = True
            log.warning("Prefect's server at %s does not answer (%s); the run goes on", api_address(), error or type(error).__name__)


def require_server() -> None:
    """Wait for a server that is away, called between two pieces of work: the engine's next word with it would end the run.

    As long as Prefect's own client would wait (`PREFECT_CLIENT_MAX_RETRIES`), but the run goes on a second after the server is back.

    Raises:
        ServerAway: It does not come back.
    """
    health, patience, began = f"{api_address()}/health", _patience(), time.monotonic()
    while not _answers(health):
        if time.monotonic() - began > patience:
            raise _gone(patience)
        time.sleep(1)


def _answers(url: str) -> bool:
    """Whether something answers at all; with the standard library, as a client of Prefect's takes a tenth of a second to make."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=TIMEOUT_SECONDS):
            return True
    except HTTPError as error:
        return error.code < 500
    except OSError:  # away; or behind a proxy, or a certificate, that only Prefect's settings know of
        with ExitStack() as stack:
            return brief_client(stack).api_healthcheck() is None


def stop_waiting() -> None:
    """From now on nothing in this process waits for the server to come back."""
    import prefect.context

    global gone
    gone = _patience()
    for context in (prefect.context.get_settings_context(), prefect.context.GLOBAL_SETTINGS_CONTEXT):
        if context is not None:
            context.settings.client.max_retries = 0


def _patience() -> float:
    """Seconds that a server which is away is waited for, as Prefect's own client would."""
    return gone or 2.0 ** (get_current_settings().client.max_retries + 1)


def _gone(patience: float) -> ServerAway:
    """The error for a server that does not come back."""
    stop_waiting()
    where = api_address() if os.environ.get("PREFECT_API_URL") else "that is embedded in this run"
    return ServerAway(
        f"Prefect's server {where} has not answered for {patience:.0f} s. What is finished is kept, in the store and in MLflow; "
        "the same command goes on from there, once the server is back or with another one."
    )


def in_words(error: BaseException) -> BaseException:
    """What has ended the run, where Prefect's engine has put over it that it could not tell its server."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ServerAway | RunCancelled | KeyboardInterrupt):
            return seen
        seen = seen.__cause__ or seen.__context__
    if isinstance(error, httpx.TransportError):  # the server went away at the very moment when the engine spoke to it
        return _gone(_patience())
    return error
