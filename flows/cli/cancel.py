"""`ladder cancel`: stop a run through its Prefect server, or by a signal."""

from __future__ import annotations

import time
from contextlib import ExitStack
from uuid import UUID

from conf.errors import LadderError, UserError
from conf.home import Home
from conf.loading.introspect import suggest
from conf.locks import is_held
from flows.cli.printing import begin
from flows.serving.environment import prepare_environment
from tasks.records.format import duration
from tasks.records.run import RunRecord
from tasks.runtime.runs.run_lock import ask_to_end, is_alive
from tasks.runtime.runs.run_registry import list_runs, load_run

PATIENCE_SECONDS = 30.0
SETTLE_SECONDS = 5.0  # from the end of a run to the end of its process
SIGNAL_SECONDS = 12.0  # a run polls for its cancellation every two seconds; one that has not ended by then gets a signal, too


def cancel_run(home: Home, run: str | None) -> str:
    """Cancel a run and wait for its end.

    Args:
        home: Where it runs.
        run: Its name; None: the only one that runs.

    Returns:
        Text of how it ended, or that it is still stopping: a training ends with its step, which may take long.

    Raises:
        UserError: It does not run, or there is a choice.
        LadderError: It can be reached neither through Prefect nor by a signal.
    """
    record = _running(home, run)
    begin(f"{record.run}: asking it to stop")
    prepare_environment(home)
    began, requested, signalled = time.monotonic(), _request(record), False
    while is_alive(home, record.run):
        waited = time.monotonic() - began
        if not signalled and (waited > SIGNAL_SECONDS or not requested):
            signalled = ask_to_end(home, record)
        if waited > (PATIENCE_SECONDS if requested or signalled else SETTLE_SECONDS):
            if not requested and not signalled:
                raise LadderError(_unreachable(record))
            return _still_stopping(record, signalled, waited)
        time.sleep(0.1)
    if requested:
        _settle(home, record)
    ended = load_run(home, record.run)
    error = f" ({ended.error})" if ended.error else ""
    remedy = "" if ended.status == "done" else f"; finished models stay in the store, and `ladder rerun {ended.run}` continues from there"
    return f"{ended.run}: {ended.status} after {duration(time.monotonic() - began)}{error}{remedy}"


def _running(home: Home, run: str | None) -> RunRecord:
    running = {record.run: record for record in list_runs(home) if record.status == "running"}
    if run is None and len(running) == 1:
        return next(iter(running.values()))
    names = ", ".join(running) or "none runs now"
    if run is None:
        raise UserError.about("RUN", None, f"the name of a running run: {names}", "Name one." if running else "There is nothing to cancel.")
    if run in running:
        return running[run]
    record = load_run(home, run)  # refuses the name of no run
    raise UserError.about("RUN", run, f"a run that runs: {names}", f"This one is {record.status}. {suggest(run, list(running))}".strip())


def _unreachable(record: RunRecord) -> str:
    return f"{record.run}: Prefect's server does not answer, and process {record.pid} is not on this machine; cancel it where it runs."


def _still_stopping(record: RunRecord, signalled: bool, waited: float) -> str:
    text = f"{record.run}: still stopping after {duration(waited)}; it ends with the step under way. Finished models stay in the store."
    return text + (f" `kill {record.pid}` breaks the step off." if signalled else "")


def _settle(home: Home, record: RunRecord) -> None:
    """Correct the run's state in Prefect, where the request came so late that the run could no longer set it."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from tasks.lifecycle.dead_runs import claim_path, reap

    until = time.monotonic() + SETTLE_SECONDS
    while is_held(claim_path(home, str(record.prefect_run_id))) and time.monotonic() < until:
        time.sleep(0.1)
    with temporary_settings({PREFECT_API_URL: record.prefect_api}):
        reap(home)


def _request(record: RunRecord) -> bool:
    """Set the run's state in Prefect to Cancelling; False where its server does not answer, or there is none.

    Not by force: where the run has just ended, its state stays.
    """
    if record.prefect_api is None or record.prefect_run_id is None:
        return False
    from prefect.states import Cancelling

    from tasks.runtime.prefect_client import AWAY, fail_fast_client

    try:
        with ExitStack() as stack:
            fail_fast_client(stack, record.prefect_api).set_flow_run_state(UUID(record.prefect_run_id), Cancelling())
    except AWAY:
        return False
    return True
