"""Names and tags by which a person finds a run in Prefect: the run's name, `ladder:`, `stage:`, `quality:`, `repeats:`."""

from __future__ import annotations

from collections.abc import Iterable

import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException

from conf.home import home
from tasks.console import log
from tasks.records import RunRecord
from tasks.runs import all_runs
from tasks.watch import asked_once


def is_served() -> bool:
    """Whether the flow under way was started through a deployment: its parameters come from a server."""
    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and context.flow_run.deployment_id is not None


def repeated(ladder: str, named: str) -> str | None:
    """The run that this one repeats; a scheduled run repeats nothing.

    It is the one that is named; of a flow run that is retried, its earlier attempt; of a run that a person has started through a form,
    the newest of the same ladder.
    """
    context = FlowRunContext.get()
    if named or context is None or context.flow_run is None:
        return named or None
    own = context.flow_run
    by_hand = own.deployment_id is not None and not own.auto_scheduled
    for record in all_runs(home()):
        if record.prefect_run_id == str(own.id) or (by_hand and record.source == ladder):
            return record.run
    return None


def label(name: str | None = None, tags: Iterable[str] = ()) -> None:
    """Give the flow run under way a name and more tags; what a server that is away does not take is no reason to end a run."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    try:
        with asked_once(), get_client(sync_client=True) as client:
            there = client.read_flow_run(context.flow_run.id).tags
            client.update_flow_run(context.flow_run.id, name=name, tags=sorted({*there, *tags}))
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("Prefect did not take the run's name and tags: %s", error or type(error).__name__)


def label_run(record: RunRecord) -> None:
    """Name the flow run as the run is named everywhere else, and say which run it repeats."""
    name = record.run + (f", attempt {record.attempt}" if record.attempt > 1 else "")
    tags = [f"ladder:{record.ladder}"]
    if record.repeats:
        name += f", repeats {record.repeats}"
        tags.append(f"repeats:{record.repeats}")
    label(name, tags)
