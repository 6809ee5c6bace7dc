"""Names of flow runs, and their tags, by which people filter the list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, TagsContext
from prefect.exceptions import PrefectException

from conf.home import home
from tasks.lifecycle.request import ResolvedRequest, RunRequest
from tasks.records.run import RunRecord, StageRecord
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import without_retries
from tasks.runtime.runs.run_registry import list_runs

BOUND = re.compile(r"\bgate\.(\w+)")  # in a gate's reasons
LONGEST_TAG = 80  # characters


def is_served() -> bool:
    """Whether the flow under way was started by a deployment, so that its parameters come from a server."""
    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and context.flow_run.deployment_id is not None


def repeated_run(resolved: ResolvedRequest) -> str | None:
    """Name of the run that this one repeats; a scheduled run repeats none.

    It is the one that is named; for a flow run that is retried, its earlier attempt; for a run that a person has started through a form,
    the newest run of the same parameters, of which it is a copy.
    """
    context, named = FlowRunContext.get(), resolved.request.repeats
    if named or context is None or context.flow_run is None:
        return named
    own, earlier = context.flow_run, list_runs(home())
    for record in earlier:
        if record.prefect_run_id == str(own.id):
            return record.run
    if own.deployment_id is None or own.auto_scheduled:
        return None
    return next((record.run for record in earlier if resolved.is_like(record)), None)


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
    run = context.flow_run
    run.tags = sorted({*run.tags, *tags})  # nothing else tags it while it runs
    try:
        with without_retries(), get_client(sync_client=True) as client:
            client.update_flow_run(run.id, name=name, tags=run.tags)
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("Prefect did not take the run's name and tags: %s", error or type(error).__name__)


def label_request(request: RunRequest) -> None:
    """Tag the flow run with its request, so that a refused one is distinguishable too."""
    changed = [text.strip() for text in request.overrides if text.strip()]
    changed += [f"seed={request.seed}"] if request.seed is not None and not any(text.startswith("seed=") for text in changed) else []
    tags = [f"override:{_short(text)}" for text in changed]
    tags += [f"by:{_short(request.by)}"] if request.by else []
    if tags:
        label(tags=tags)


def missed_tags(record: StageRecord) -> list[str]:
    """A student's verdict, and the names of the bounds that it missed: `missed:min_parent_retention`."""
    missed = dict.fromkeys(BOUND.findall(" ".join(record.gate_reasons)))
    return [f"quality:{record.gate or 'not asked'}", *(f"missed:{name}" for name in missed)]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TAG else f"{text[: LONGEST_TAG - 1]}…"


def label_run(record: RunRecord) -> None:
    """Name the flow run after the run, with its attempt and the run that it repeats."""
    name = record.run + (f", attempt {record.attempt}" if record.attempt > 1 else "")
    tags = [f"ladder:{record.ladder}"]
    if record.repeats:
        name += f", repeats {record.repeats}"
        tags.append(f"repeats:{record.repeats}")
    label(name, tags)
