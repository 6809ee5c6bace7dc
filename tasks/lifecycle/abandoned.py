"""Close in MLflow and in Prefect what a machine that is gone has left open.

A run is closed by its own machine (dead_runs.py, mlflow_ends.py). Where machines share their servers and one of them does not come back,
Prefect's automation of silent runs ends its flow run, and the next run of the same ladder, on whatever machine, closes the rest. A machine
that comes back meanwhile opens its run again, and closes it at its end.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from conf.errors import LadderError
from conf.home import Home
from conf.served import configured_api
from tasks.lifecycle.dead_runs import end_children
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import AWAY, fail_fast_client
from tasks.runtime.runs.run_registry import list_runs
from tasks.tracking.runs import OpenLadder, RunStatus
from tasks.tracking.tracker import Tracker

ENDS: dict[StateType, RunStatus] = {StateType.COMPLETED: "FINISHED", StateType.FAILED: "FAILED"}  # all others: KILLED


def close_abandoned(home: Home, tracker: Tracker, ladder: str) -> None:
    """Close the runs of a ladder that are open in MLflow, are no runs of this home, and have ended by Prefect's server.

    A server that does not answer is no error: the runs wait for the next call.
    """
    if configured_api() is None:  # the embedded server knows no run of another home
        return
    try:
        found = tracker.open_ladders(ladder)
        own = {record.run for record in list_runs(home)} if found else set[str]()
        if left := [each for each in found if each.run not in own]:
            with ExitStack() as stack:
                client = fail_fast_client(stack)
                for each in left:
                    _close(client, tracker, each)
    except (*AWAY, LadderError) as error:
        log.debug("open runs of other machines are not looked at: %s", error or type(error).__name__)


def _close(client: SyncPrefectClient, tracker: Tracker, left: OpenLadder) -> None:
    flow_run = UUID(left.flow_run)
    try:
        state = client.read_flow_run(flow_run).state
    except ObjectNotFound:  # of another server
        return
    if state is None or not state.is_final():
        return
    end_children(client, flow_run, partial(Crashed, message="the run ended without them"))
    tracker.close_children(left.run_id, "KILLED")
    tracker.close(left.run_id, ENDS.get(state.type, "KILLED"), int(state.timestamp.timestamp() * 1000))
    log.info("run %s of another machine has ended as %s; closed in MLflow, too", left.run, state.name)
