"""What a process left behind that died without a word: records that say `running`, flow runs that Prefect shows as running for ever.

Prefect notices the death of what its runners and workers have started, but not of its subflows and tasks, and nothing at all of a
`ladder run`. Our truth is a kernel lock: each flow run has a claim, `locks/flow-<id>.lock`, held as long as its process lives.
"""

from __future__ import annotations

import fcntl
import functools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed, Failed

from conf.errors import LadderError
from conf.home import Home
from tasks.records.run import RunRecord
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import AWAY, fail_fast_client
from tasks.runtime.run_registry import DIED, all_runs, mark_interrupted, note_mlflow_run, note_restart
from tasks.tracking.tracker import Tracker, connect

RESTART = re.compile(r"restart:(\d+)")
FORGET_SECONDS = 7 * 24 * 3600  # a flow run that the server at hand does not know, as it ran against another one
OPEN = [StateType.RUNNING, StateType.PENDING, StateType.PAUSED, StateType.CANCELLING]
_claims: dict[str, int] = {}  # descriptors, open as long as the process lives


def claim_path(home: Home, flow_run_id: str) -> Path:
    """The file whose lock the process of a flow run holds as long as it lives."""
    return home.locks / f"flow-{flow_run_id}.lock"


def claim(home: Home, flow_run_id: str) -> None:
    """Say that this process runs a flow run, until it ends."""
    if flow_run_id in _claims:  # the flow is retried in this process
        return
    home.locks.mkdir(parents=True, exist_ok=True)
    _claims[flow_run_id] = os.open(claim_path(home, flow_run_id), os.O_RDWR | os.O_CREAT)
    fcntl.flock(_claims[flow_run_id], fcntl.LOCK_EX)


def reap(home: Home) -> list[RunRecord]:
    """Write down which runs have died, and have Prefect and MLflow show it. Does next to nothing where none has.

    A server that is away is no error: its flow runs wait for the next call.

    Returns:
        The records of the runs whose death was not known before.
    """
    known = all_runs(home)
    buried = [mark_interrupted(home, record.run) for record in known if record.status == "interrupted" and record.error == DIED]
    dead = [record for record in buried if record]
    for record in dead:
        log.warning("run %s: %s", record.run, DIED)
        _close_mlflow(home, record)
    left = list(home.locks.glob("flow-*.lock"))
    records = {record.prefect_run_id: record for record in (*known, *dead)}
    try:
        with ExitStack() as stack:
            client: SyncPrefectClient | None = None
            for path in left:
                with _ended(path) as flow_run_id:
                    if flow_run_id is None:
                        continue
                    client = client or fail_fast_client(stack)
                    if _settle(client, flow_run_id, records.get(str(flow_run_id))) or _age(path) > FORGET_SECONDS:
                        path.unlink()
    except AWAY as error:
        log.debug("Prefect's server is away: %s", error)
    return dead


def restart_dead(home: Home) -> list[UUID]:
    """Start runs that have died again, each through the deployment of its flow run, as often as its `compute.restarts` allows.

    The records say which, so that it does not matter who has found them dead, and a server that is away is asked again by the next call.

    Returns:
        The new flow runs.
    """
    dead = [record for record in all_runs(home) if record.status == "interrupted" and record.error == DIED]
    due = [record for record in dead if record.attempt <= record.restarts and record.restarted is None and record.prefect_run_id]
    started: list[UUID] = []
    if not due:
        return started
    try:
        with ExitStack() as stack:
            client = fail_fast_client(stack)
            for record in due:
                started += _restart(home, client, record)
    except AWAY as error:
        log.warning("runs that have died cannot be restarted yet: %s", error or type(error).__name__)
    return started


def _restart(home: Home, client: SyncPrefectClient, record: RunRecord) -> list[UUID]:
    number = record.attempt
    try:
        old = client.read_flow_run(UUID(record.prefect_run_id))
        name = "one-stage/stage" if record.only else "prove/prove" if record.proof else "distill/distill"
        deployment = old.deployment_id or client.read_deployment_by_name(name).id
        tags = [*(tag for tag in old.tags if not RESTART.fullmatch(tag) and not tag.startswith("repeats:")), f"restart:{number}"]
        again = client.create_flow_run_from_deployment(
            deployment, parameters=old.parameters, tags=tags, idempotency_key=f"{record.run}-restart-{number}-{old.id}"
        )
    except ObjectNotFound:
        log.warning("run %s cannot be restarted: the server lacks its flow run, or the deployment of its flow", record.run)
        note_restart(home, record.run, "no: the server lacked its flow run, or the deployment")
        return []
    note_restart(home, record.run, str(again.id))
    log.warning("run %s: restarted, attempt %d", record.run, number + 1)
    return [again.id]


def attempt_of(tags: Iterable[str]) -> int:
    """Which attempt a flow run with these tags is; a run that a person starts is the first again."""
    found = [int(match[1]) for match in map(RESTART.fullmatch, tags) if match]
    return max(found, default=0) + 1


def cancel_children(flow_run_id: UUID) -> None:
    """End as cancelled what a cancelled flow run has left open beneath it, as far as the server can be reached."""
    try:
        with ExitStack() as stack:
            _end_children(fail_fast_client(stack), flow_run_id, functools.partial(Cancelled, message="the run was cancelled"))
    except AWAY as error:
        log.debug("Prefect's server is away: %s", error)


def _end_children(client: SyncPrefectClient, flow_run_id: UUID, end: Callable[[], State]) -> None:
    children = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run_id]))
    for child in client.read_flow_runs(flow_run_filter=children):
        _end_children(client, child.id, end)
        if child.state is None or child.state.type in OPEN:
            client.set_flow_run_state(child.id, end(), force=True)
    still = TaskRunFilterState(type=TaskRunFilterStateType(any_=OPEN))
    tasks = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run_id]), state=still)
    for task in client.read_task_runs(task_run_filter=tasks):
        client.set_task_run_state(task.id, end(), force=True)


def _settle(client: SyncPrefectClient, flow_run_id: UUID, record: RunRecord | None) -> bool:
    """Bring an ended flow run and what is beneath it to their end; False where this server does not know it."""
    try:
        known = client.read_flow_run(flow_run_id).state
    except ObjectNotFound:
        return False
    if known is not None and known.is_completed():
        return True
    end = _end_of(record)
    _end_children(client, flow_run_id, end if end().is_cancelled() else functools.partial(Crashed, message=end().message))
    if known is not None and known.type in OPEN:
        client.set_flow_run_state(flow_run_id, end(), force=True)
    return known is None or known.type != StateType.SCHEDULED


def _end_of(record: RunRecord | None) -> Callable[[], State]:
    """The state that tells how a run has ended, though its process could not say so."""
    message = record.error if record and record.error else DIED
    if record is None or record.status in ("running", "interrupted"):
        return functools.partial(Crashed, message=message)
    if record.status == "done":
        return Completed
    return functools.partial(Cancelled if record.status == "cancelled" else Failed, message=message)


@contextmanager
def _ended(path: Path) -> Iterator[UUID | None]:
    """The flow run of a claim that no process holds any more, while nobody else looks after it; None where one does."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield UUID(path.stem.removeprefix("flow-"))
    except BlockingIOError:
        yield None
    finally:
        os.close(descriptor)


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def mlflow_run_of(record: RunRecord, tracker: Tracker) -> str | None:
    """MLflow's id of a run, also where the process was killed between opening it there and writing the id down; None: there is none."""
    return record.mlflow_run_id or tracker.find_ladder(record.run, record.ladder)


def _close_mlflow(home: Home, record: RunRecord) -> None:
    if record.mlflow_uri is None:
        return
    try:
        tracker = connect(home)
        run_id = mlflow_run_of(record, tracker)
        if run_id is None:
            return
        tracker.close_children(run_id, "KILLED")
        tracker.close(run_id, "KILLED")
        if record.mlflow_run_id is None:
            note_mlflow_run(home, record.run, run_id)
    except LadderError as error:
        log.warning("run %s stays open in MLflow: %s", record.run, error)
