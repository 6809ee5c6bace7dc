"""A run's second thread: publish progress, poll for cancellation."""

from __future__ import annotations

import contextvars
import threading
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from types import TracebackType
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from tasks.records.format import duration
from tasks.runtime import cancellation
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import AWAY, TIMEOUT_SECONDS, api_address, fail_fast_client, stop_waiting
from tasks.runtime.progress import BOARD, ShownTraining

POLL_SECONDS = 2.0


class PrefectWatcher(AbstractContextManager["PrefectWatcher"]):
    """Watches one flow run while it lasts; its subflows send no heartbeats, which would cost each of them a second."""

    def __init__(self, flow_run_id: UUID) -> None:
        self.flow_run_id = flow_run_id
        self.over = threading.Event()
        self.away_since: float | None = None
        self.warned = False
        self.published: dict[int, tuple[UUID, ShownTraining]] = {}  # index in BOARD -> artifact and its content
        self.thread = threading.Thread(target=contextvars.copy_context().run, args=(self._run,), name="prefect-watcher", daemon=True)
        self.stack = ExitStack()

    def __enter__(self) -> PrefectWatcher:
        BOARD.clear()
        cancellation.begin(self.is_cancelled)
        self.thread.start()
        self.stack.enter_context(temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.over.set()
        self.thread.join(2 * TIMEOUT_SECONDS)
        self.stack.close()

    def is_cancelled(self) -> bool:
        """Whether a person has cancelled the flow run; False while its server does not answer."""
        try:
            with ExitStack() as stack:
                return self._cancelled_on_server(fail_fast_client(stack))
        except httpx.TransportError:
            stop_waiting()  # otherwise the engine waits for minutes, and with it the person who ended the run
            return False
        except AWAY:
            return False

    def _run(self) -> None:
        with ExitStack() as stack:
            client = fail_fast_client(stack)
            while not self.over.wait(POLL_SECONDS):
                self._poll(client)
            self._poll(client)

    def _poll(self, client: SyncPrefectClient) -> None:
        try:
            if self._cancelled_on_server(client) and not self.over.is_set():
                cancellation.cancel()
            self._publish(client)
        except AWAY as error:
            self._note_outage(error)
        else:
            if self.warned and self.away_since is not None:
                log.info("Prefect's server answers again, after %s", duration(time.monotonic() - self.away_since))
            self.away_since, self.warned = None, False

    def _cancelled_on_server(self, client: SyncPrefectClient) -> bool:
        state = client.read_flow_run(self.flow_run_id).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())

    def _publish(self, client: SyncPrefectClient) -> None:
        for place, item in enumerate(BOARD):
            now = replace(item)  # the training thread keeps writing to `item`
            before = self.published.get(place)
            if before is None:
                made = ArtifactCreate(
                    key=now.key,
                    type="progress",
                    description=now.description,
                    data=now.percent,
                    flow_run_id=now.flow_run_id,
                    task_run_id=now.task_run_id,
                )
                self.published[place] = client.create_artifact(made).id, now
            elif before[1] != now:
                client.update_artifact(before[0], ArtifactUpdate(data=now.percent, description=now.description))
                self.published[place] = before[0], now

    def _note_outage(self, error: Exception) -> None:
        """Warn of an outage at its second failed poll: a restart of the server fails one."""
        if self.away_since is None:
            self.away_since = time.monotonic()
        elif not self.warned:
            self.warned = True
            log.warning("Prefect's server at %s does not answer (%s); the run goes on", api_address(), error or type(error).__name__)
