"""Names and tags of flow runs: `ladder:`, `stage:`, `quality:`, `repeats:`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, TagsContext
from prefect.exceptions import PrefectException

from conf.home import home
from tasks.lifecycle.request import ResolvedRequest
from tasks.records.run import RunRecord
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import without_retries
from tasks.runtime.run_registry import all_runs


def is_served() -> bool:
    """Whether the flow under way was started by a deployment, so that its parameters come from a server."""
    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and context.flow_run.deployment_id is not None


def repeated_run(resolved: ResolvedRequest) -> str | None:
    """Name of the run that this one repeats; a scheduled run repeats none.

    It is the one that is named; for a flow run that is retried, its earlier attempt; for a run that a person has started through a form,
    the run with the same parameters or with one parameter changed, the newest of several.
    """
    context, named = FlowRunContext.get(), resolved.request.repeats
    if named or context is None or context.flow_run is None:
        return named
    own, earlier = context.flow_run, all_runs(home())
    for record in earlier:
        if record.prefect_run_id == str(own.id):
            return record.run
    if own.deployment_id is None or own.auto_scheduled:
        return None
    alike = [record for record in earlier if resolved.is_like(record) and resolved.changes(record) <= 1]
    return min(alike, key=resolved.changes).run if alike else None


@contextmanager
def untagged() -> Iterator[None]:
    """Tasks within do not inherit the tags of their flow run.

    For a task with tags Prefect requests a concurrency slot from its server, which answers 503 while another process writes to its SQLite;
    the client retries after two seconds.
    """
    with TagsContext(current_tags=set()):
        yield


def label(name: str | None = None, tags: Iterable[str] = ()) -> None:
    """Name the flow run under way and add tags; a failure is logged and does not end the run."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    try:
        with without_retries(), get_client(sync_client=True) as client:
            before = client.read_flow_run(context.flow_run.id).tags
            client.update_flow_run(context.flow_run.id, name=name, tags=sorted({*before, *tags}))
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("Prefect did not take the run's name and tags: %s", error or type(error).__name__)


def label_run(record: RunRecord) -> None:
    """Name the flow run after the run, with its attempt and the run that it repeats."""
    name = record.run + (f", attempt {record.attempt}" if record.attempt > 1 else "")
    tags = [f"ladder:{record.ladder}"]
    if record.repeats:
        name += f", repeats {record.repeats}"
        tags.append(f"repeats:{record.repeats}")
    label(name, tags)
