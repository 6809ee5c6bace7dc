"""`ladder run`: check, prepare the environment, run the flow, print the result."""

from __future__ import annotations

import atexit
import gc
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from conf.errors import ExportRefused, GateStopped, LadderError, RunCancelled, UserError
from conf.home import home, require_space
from conf.loading.load import load
from flows.cli.printing import begin
from flows.parameters import beside_form, load_request, refuse_early, settled
from flows.serving.environment import prepare_environment
from tasks.lifecycle.request import Naming, ResolvedRequest, RunRequest
from tasks.records.run import RunRecord
from tasks.store.remote.results import require_remote

if TYPE_CHECKING:
    from prefect import Flow

T = TypeVar("T")
ENDS = (GateStopped, ExportRefused)  # of runs that have made all that they could; their tables are shown


def relaunch(run: str, overrides: Sequence[str], start_at: str | None, fresh: bool, seed: int | None, named: Naming) -> None:
    """Run the ladder of an earlier run again, with that run's overrides and these; `named`: its `name`, `note` and `by`.

    Raises:
        UserError: There is no such run, or its ladder is gone.
        LadderError: As `launch`.
    """
    from tasks.runtime.runs.run_registry import load_run

    record = load_run(home(), run)
    if record.only and start_at:
        raise UserError.about("--start-at", start_at, f"nothing: {run} made the one stage {record.only}", "Leave it out.")
    if (record.proof or record.search) and start_at:
        of = "proof, whose arms" if record.proof else "search, whose trials"
        raise UserError.about("--start-at", start_at, f"nothing: {run} is a {of} have stages of their own", "Leave it out.")
    launch(
        RunRequest(
            record.source,
            (*record.overrides, *overrides),
            start_at,
            fresh,
            seed,
            only=record.only,
            teachers=record.named,
            inline_ladder=load(str(Path(record.folder) / "ladder.yaml")).ladder if record.whole else None,
            repeats=record.run,
            proof=record.proof,
            search=record.search,
            **named,
        )
    )


def launch(request: RunRequest) -> None:
    """Run a ladder in this process.

    Raises:
        UserError: Something is wrong with the input; nothing was started.
        LadderError: It failed, or a gate stopped it.
    """
    resolved = load_request(request)  # before the slow imports: a typo is answered at once
    require_space(home())
    count = len(resolved.ladder.stages)
    begin(f"{resolved.ladder.name}: teacher and {count} stage{'s' * (count != 1)}; loading PyTorch, MLflow and Prefect")
    run_flow = _prepare(request, resolved)
    with beside_form(inline_ladder=request.inline_ladder, repeats=request.repeats):
        flow_run_id, outcome = _outcome(run_flow)
    _raise_error(flow_run_id, None if isinstance(outcome, ENDS) else outcome)
    _conclude(flow_run_id, outcome if isinstance(outcome, ENDS) else None)


def result_of(run_flow: Callable[[], Any]) -> Any:
    """Run a flow, whose call is prepared, and return its result.

    Raises:
        LadderError: It failed.
    """
    flow_run_id, outcome = _outcome(run_flow)
    _raise_error(flow_run_id, outcome)
    return outcome


def _raise_error(flow_run_id: str, outcome: Any) -> None:
    if isinstance(outcome, LadderError | KeyboardInterrupt):
        raise outcome
    if isinstance(outcome, BaseException):
        raise LadderError(f"{type(outcome).__name__}: {outcome}. `prefect flow-run logs {flow_run_id}` has the traceback.")


def _prepare(request: RunRequest, resolved: ResolvedRequest) -> Callable[[], Any]:
    """Check the request, start the servers, close dead runs; returns the call of the flow."""

    def check() -> None:
        if request.budget is not None:
            from tasks.planning.budget import parse_budget

            parse_budget(request.budget)  # Prefect would refuse it as a parameter, in words of its own
        refuse_early(settled(resolved))

    return prepare_flow(check, lambda: _flow_call(request, resolved.overrides), recorded=resolved.ladder.tracking == "mlflow")


def prepare_flow(check: Callable[[], object], import_flow: Callable[[], T], *, recorded: bool) -> T:
    """Start the servers, check, and close dead runs.

    Args:
        check: Raises where something is wrong with the request.
        import_flow: Imports a flow, and returns its call.
        recorded: Whether an MLflow that does not answer is refused before anything is recorded or computed.
    """
    gc.disable()  # until everything is imported, of which nothing is garbage
    require_remote(home())
    prepare_environment(home())
    from flows.serving.embedded.server import begin_embedded, reach_server

    begin_embedded(home())  # it starts while this process imports
    from tasks.tracking.recorder import tracker_of

    atexit.register(gc.freeze)  # the last collection, over all that torch has made, takes two seconds and frees nothing that matters
    check()
    if recorded:
        tracker_of(home())
    reach_server(home())
    from prefect.settings import get_current_settings

    from tasks.lifecycle.dead_runs import reap

    run_flow = import_flow()
    reap(home())
    gc.freeze()  # imported modules stay; collecting through them again and again takes a second
    gc.enable()
    # A run is alive while its process holds a lock; a heartbeat would only hold up its end, for up to a second.
    if not os.environ.get("PREFECT_FLOWS_HEARTBEAT_FREQUENCY"):
        get_current_settings().flows.heartbeat_frequency = None
    return run_flow


def _outcome(run_flow: Callable[[], Any]) -> tuple[str, Any]:
    """Run the flow; returns the flow run's id, and the flow's result or its error."""
    from prefect.exceptions import UnfinishedRun

    from flows.adapter.steps import result_of
    from tasks.runtime import cancellation
    from tasks.runtime.prefect_client import root_cause

    try:
        with cancellation.interruptible():
            state = run_flow()
    except Exception as error:  # noqa: BLE001 - of Prefect's engine, whatever it is; ours it hands back in the state
        raise root_cause(error) from None
    flow_run_id = str(state.state_details.flow_run_id)
    try:
        return flow_run_id, result_of(state, raise_on_failure=False)
    except UnfinishedRun:  # somebody cancelled it at its very end, and Prefect takes no other end any more
        return flow_run_id, _recorded_error(flow_run_id)


def _flow_call(request: RunRequest, overrides: tuple[str, ...]) -> Callable[[], Any]:
    """The call of the flow that a request is for, imported; its parameters are those that the Prefect UI shows."""
    path = str(Path(request.source).absolute()) if Path(request.source).is_file() else request.source
    named = {"name": request.name or "", "note": request.note or "", "by": request.by or ""}
    given: dict[str, Any] = {"overrides": overrides, "fresh": request.fresh, **named}
    if request.only is not None:
        from flows.one_stage import one_stage

        return partial(run_here, one_stage, path, request.only, request.teachers, **given)
    if request.search:
        from flows.search import search_settings

        return partial(run_here, search_settings, path, overrides=overrides, **named)
    given |= {"budget": request.budget or ""}
    if request.proof:
        from flows.prove import prove

        return partial(run_here, prove, path, **given)
    from flows.distill import distill

    return partial(run_here, distill, path, start_at=request.start_at or "", **given)


def run_here(called: Flow[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a flow to its final state. Its run is created under a key that is claimed before: a kill at any moment leaves a trace."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import FlowRunCreate
    from prefect.client.schemas.objects import FlowRun
    from prefect.flow_engine import run_flow
    from prefect.states import Pending, to_state_create
    from prefect.utilities.callables import get_call_parameters

    from tasks.lifecycle.dead_runs import claim_launch, release_launch

    key, parameters = claim_launch(home()), get_call_parameters(called.fn, args, kwargs)
    with get_client(sync_client=True) as client:
        wanted = FlowRunCreate(
            flow_id=client.create_flow(called),
            flow_version=called.version,
            parameters=called.serialize_parameters(parameters),
            state=to_state_create(Pending()),
            idempotency_key=key,
        )
        answer = client.request("POST", "/flow_runs/", json=wanted.model_dump(mode="json", exclude_unset=True))
    state = run_flow(called, FlowRun.model_validate(answer.json()), parameters, return_type="state")
    release_launch(home(), key)
    return state


def _record_of(flow_run_id: str) -> RunRecord | None:
    from tasks.runtime.runs.run_registry import full_record, list_runs

    run = next((record.run for record in list_runs(home()) if record.prefect_run_id == flow_run_id), None)  # another run may be newer
    return full_record(home(), run) if run else None


def _recorded_error(flow_run_id: str) -> LadderError | None:
    record = _record_of(flow_run_id)
    if record is None:
        return RunCancelled("cancelled before it began")
    kinds: dict[str, type[LadderError]] = {"stopped": GateStopped, "cancelled": RunCancelled}
    return kinds.get(record.status, LadderError)(record.error) if record.error else None


def _conclude(flow_run_id: str, stopped: GateStopped | ExportRefused | None) -> None:
    from rich.console import Console

    from flows.cli.printing import clickable
    from flows.cli.show.runs import links
    from flows.cli.show.search import search_lines
    from tasks.proof.verdict_text import render
    from tasks.records.proof import read_proof
    from tasks.records.routes.search import read_search
    from tasks.report import tables

    record = _record_of(flow_run_id)
    assert record is not None
    console = Console(highlight=False)
    if (compared := read_proof(record)) is not None:
        console.print(render(compared))
        console.print(f"\n{compared.verdict}", markup=False)
    elif (searched := read_search(record)) is not None:
        console.print("\n".join(search_lines(searched, record)), markup=False, soft_wrap=True)
    else:
        console.print(tables.render_rich(record))
    for line in map(clickable, links(record)):
        console.out(line, highlight=False)
    if not record.prefect_url:
        settings = f"PREFECT_HOME={shlex.quote(str(home().prefect))} PREFECT_SERVER_ANALYTICS_ENABLED=false"  # as Ladder's own servers
        console.print(f"Prefect UI: {settings} prefect server start", markup=False, soft_wrap=True)
    sys.stdout.flush()
    if stopped:
        raise stopped
