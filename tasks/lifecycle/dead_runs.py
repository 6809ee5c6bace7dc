"""Reconcile records, Prefect and MLflow after a crash.

A killed process leaves a record that says `running` and flow runs that Prefect shows as running for ever: Prefect notices the death of
what its runners and workers have started, but not of its subflows and tasks, nor of a `ladder run`. A kernel lock tells whether a flow
run is alive: each has a claim, `locks/flow-<id>.lock`, held until its process ends. A flow run that a command creates has another from
before it exists, `locks/launch-<idempotency key>.lock`: its id is known only to the server until the answer has arrived.
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
from uuid import UUID, uuid4

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterParentFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed, Failed

from conf.home import Home
from tasks.lifecycle.mlflow_ends import close_earlier
from tasks.records.run import Kind, RunRecord
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import AWAY, fail_fast_client
from tasks.runtime.runs.run_registry import DIED, list_runs, mark_interrupted, note_restart

RESTART = re.compile(r"restart:(\d+)")
FORGET_SECONDS = 7 * 24 * 3600  # for a flow run that this server lacks, because it ran against another one
LAUNCH = "launch-"
DEPLOYMENTS: dict[Kind, str] = {
    "ladder": "distill/distill",
    "stage": "one-stage/stage",
    "proof": "prove/prove",
    "search": "search/search",
}
OPEN = [StateType.RUNNING, StateType.PENDING, StateType.PAUSED, StateType.CANCELLING]
_claims: dict[str, int] = {}  # descriptors, open until the process ends


def claim_path(home: Home, flow_run_id: str) -> Path:
    """The file whose lock the process of a flow run holds until it ends."""
    return home.locks / f"flow-{flow_run_id}.lock"


def claim(home: Home, flow_run_id: str) -> None:
    """Lock the claim of a flow run until this process ends."""
    if flow_run_id not in _claims:  # else the flow is retried in this process
        _hold(flow_run_id, claim_path(home, flow_run_id))


def claim_launch(home: Home) -> str:
    """An idempotency key for a new flow run, claimed until this process ends or releases it."""
    key = str(uuid4())
    _hold(key, _launch_path(home, key))
    return key


def release_launch(home: Home, key: str) -> None:
    """Release the claim of a flow run that ended well."""
    _launch_path(home, key).unlink(missing_ok=True)
    os.close(_claims.pop(key))


def _launch_path(home: Home, key: str) -> Path:
    return home.locks / f"{LAUNCH}{key}.lock"


def _hold(key: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _claims[key] = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(_claims[key], fcntl.LOCK_EX)


def reap(home: Home) -> list[RunRecord]:
    """Mark dead runs as interrupted in their records, in Prefect and in MLflow; costs next to nothing where there are none.

    An unavailable server is no error: its runs wait for the next call.

    Returns:
        The records of the runs that this call has marked.
    """
    records = list_runs(home)
    marked = [mark_interrupted(home, record.run) for record in records if record.status == "interrupted" and record.error == DIED]
    dead = [record for record in marked if record]
    for record in dead:
        log.warning("run %s: %s", record.run, DIED)
    close_earlier(home)
    claims = [path for kind in ("flow-", LAUNCH) for path in home.locks.glob(f"{kind}*.lock")]
    of_flow_run = {record.prefect_run_id: record for record in (*records, *dead)}
    try:
        with ExitStack() as stack:
            client: SyncPrefectClient | None = None
            for path in claims:
                with _ended(path) as key:
                    if key is None:
                        continue
                    client = client or fail_fast_client(stack)
                    ids = _launched(client, key) if path.name.startswith(LAUNCH) else [key]
                    settled = [_settle(client, each, of_flow_run.get(str(each))) for each in ids]
                    if (settled and all(settled)) or _age(path) > FORGET_SECONDS:
                        path.unlink()
    except AWAY as error:
        log.debug("Prefect's server does not answer: %s", error)
    return dead


def restart_dead(home: Home) -> list[UUID]:
    """Restart dead runs, each through the deployment of its flow run, as often as its `compute.restarts` allows.

    Decided from the records, whichever process has marked them; an unavailable server is asked again by the next call.

    Returns:
        The new flow runs.
    """
    dead = [record for record in list_runs(home) if record.status == "interrupted" and record.error == DIED]
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
        name = DEPLOYMENTS[record.kind]
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
    """Number of the attempt that a flow run with these tags is; a run that a person starts is the first."""
    restarts = [int(match[1]) for match in map(RESTART.fullmatch, tags) if match]
    return max(restarts, default=0) + 1


def cancel_children(flow_run_id: UUID) -> None:
    """Set the open subflows and tasks of a cancelled flow run to Cancelled, if the server answers."""
    try:
        with ExitStack() as stack:
            end_children(fail_fast_client(stack), flow_run_id, functools.partial(Cancelled, message="the run was cancelled"))
    except AWAY as error:
        log.debug("Prefect's server does not answer: %s", error)


def end_children(client: SyncPrefectClient, flow_run_id: UUID, end: Callable[[], State]) -> None:
    """Set the open subflows and tasks of a flow run to a final state."""
    children = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run_id]))
    for child in client.read_flow_runs(flow_run_filter=children):
        end_children(client, child.id, end)
        if child.state is None or child.state.type in OPEN:
            client.set_flow_run_state(child.id, end(), force=True)
    unfinished = TaskRunFilterState(type=TaskRunFilterStateType(any_=OPEN))
    tasks = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run_id]), state=unfinished)
    for task in client.read_task_runs(task_run_filter=tasks):
        client.set_task_run_state(task.id, end(), force=True)


def _launched(client: SyncPrefectClient, key: UUID) -> list[UUID]:
    """The flow run of an idempotency key, if the server knows it."""
    of_key = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[str(key)]))
    return [run.id for run in client.read_flow_runs(flow_run_filter=of_key)]


def _settle(client: SyncPrefectClient, flow_run_id: UUID, record: RunRecord | None) -> bool:
    """Set an ended flow run and everything beneath it to a final state; False where this server has no such flow run."""
    try:
        state = client.read_flow_run(flow_run_id).state
    except ObjectNotFound:
        return False
    if state is not None and state.is_completed():
        return True
    end = _end_of(record)
    end_children(client, flow_run_id, end if end().is_cancelled() else functools.partial(Crashed, message=end().message))
    if state is not None and state.type in OPEN:
        client.set_flow_run_state(flow_run_id, end(), force=True)
    return state is None or state.type != StateType.SCHEDULED


def _end_of(record: RunRecord | None) -> Callable[[], State]:
    """Final state of a flow run by the run's record, where its process could not set it."""
    message = record.error if record and record.error else DIED
    if record is None or record.status == "running" or message == DIED:
        return functools.partial(Crashed, message=message)
    if record.status == "done":
        return Completed
    if record.status == "interrupted":
        return functools.partial(Cancelled, name="Interrupted", message=message)
    return functools.partial(Cancelled if record.status == "cancelled" else Failed, message=message)


@contextmanager
def _ended(path: Path) -> Iterator[UUID | None]:
    """The flow run, or its key, of an abandoned claim, locked meanwhile; None where a process holds it."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield UUID(path.stem.partition("-")[2])
    except BlockingIOError:
        yield None
    finally:
        os.close(descriptor)


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime
