"""Apply deployments to Prefect without undoing changes made in its UI."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import ValidationError

from conf.atomic import write_atomic
from conf.errors import LadderError, UserError
from conf.home import Home
from conf.loading.deployments import Deployment, Deployments, FlowName, Timetable
from conf.loading.introspect import suggest
from models.base.files import read_json
from tasks.runtime.logs import log

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.client.schemas.schedules import SCHEDULE_TYPES
    from prefect.deployments.runner import RunnerDeployment

# By module, not by file: a file's path would import the module a second time.
FLOWS: dict[FlowName, tuple[str, str]] = {
    "distill": ("flows.distill", "distill"),
    "stage": ("flows.one_stage", "one_stage"),
    "search": ("flows.search", "search_settings"),
    "prove": ("flows.prove", "prove"),
    "report": ("flows.reports", "report"),
    "compare": ("flows.reports", "compare"),
    "export": ("flows.shipping.exports", "export"),
    "monitor": ("flows.monitor", "monitor"),
    "redistill": ("flows.redistill", "redistill"),
    "promote": ("flows.promote", "promote"),
}

ALLOWED = {"cron": "a cron expression such as 0 2 * * *", "rrule": "a rule of RFC 5545 such as FREQ=WEEKLY;BYDAY=SA;BYHOUR=6"}


def flow_of(name: FlowName) -> Flow[..., Any]:
    """The flow that a deployment runs."""
    module, attribute = FLOWS[name]
    return getattr(importlib.import_module(module), attribute)


def check(deployments: Deployments) -> None:
    """Check cron expressions, recurrence rules and parameters against Prefect and the flows.

    Raises:
        UserError: Naming the key.
    """
    for i, offered in enumerate(deployments.deployments):
        key = f"deployments[{i}]"
        _check_parameters(offered, offered.parameters, f"{key}.parameters")
        for j, timetable in enumerate(offered.schedules):
            place = f"{key}.schedules[{j}]"
            _check_parameters(offered, timetable.parameters, f"{place}.parameters")
            try:
                schedule_of(timetable)
            except ValidationError as error:
                kind = "cron" if timetable.cron is not None else "rrule"
                reason = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise UserError.about(f"{place}.{kind}", getattr(timetable, kind), ALLOWED[kind], f"{reason}.") from None
            if (never := _never_starts(timetable)) is not None:
                kind = "cron" if timetable.cron is not None else "rrule"
                raise UserError.about(f"{place}.{kind}", getattr(timetable, kind), ALLOWED[kind], f"It never starts a run: {never}.")


def _never_starts(timetable: Timetable) -> str | None:
    """Reason for which a schedule starts no run; None: Prefect's server finds a time for one."""
    from prefect.server.schemas.schedules import CronSchedule, RRuleSchedule

    if timetable.cron is not None:
        made = CronSchedule(cron=timetable.cron, timezone=timetable.timezone)
    elif timetable.rrule is not None:
        made = RRuleSchedule(rrule=timetable.rrule, timezone=timetable.timezone)
    else:
        return None
    try:
        return None if asyncio.run(made.get_dates(n=1)) else "its end has passed, or no month has such a day"
    except ValueError as error:
        return str(error)


def _check_parameters(offered: Deployment, parameters: dict[str, Any], key: str) -> None:
    from prefect.utilities.schema_tools import validate

    schema = flow_of(offered.flow).parameters.model_dump_for_openapi()
    names = list(schema["properties"])
    for name, value in parameters.items():
        if name not in names:
            remedy = f"{suggest(name, names)}These are the parameters of the flow {offered.flow}."
            raise UserError(f"{key}.{name}: unknown key, with the value {value!r}; allowed: {', '.join(names)}. {remedy}")
    for error in validate(parameters, schema, ignore_required=True):  # as the API does it for a form
        path = error.json_path.removeprefix("$.")
        raise UserError(f"{key}.{path}: got {error.instance!r}; {error.message}.")


def build(offered: Deployment, pool: str | None = None, variables: dict[str, Any] | None = None) -> RunnerDeployment:
    """The deployment as Prefect registers it, without its schedules: see `apply_schedules`.

    Args:
        offered: The entry of the file.
        pool: Work pool whose workers run it; None: the process that serves it.
        variables: Job variables of the work pool.
    """
    from prefect.deployments.runner import RunnerDeployment
    from prefect.types.entrypoint import EntrypointType

    made = RunnerDeployment.from_flow(
        flow_of(offered.flow),
        offered.name,
        description=offered.description,
        parameters=dict(offered.parameters),
        tags=list(offered.tags),
        concurrency_limit=_limit(offered),
        entrypoint_type=EntrypointType.MODULE_PATH,
        work_pool_name=pool,
        job_variables=variables,
    )
    made.__pydantic_fields_set__.discard("schedules")  # set, even to an empty list, it would delete schedules made in the UI
    return made


def changed_code(found: DeploymentResponse, made: RunnerDeployment) -> dict[str, Any]:
    """Fields of a deployment whose values on the server name other code than the registered flow."""
    wanted = {"pull_steps": None, "path": None, "entrypoint": made.entrypoint, "storage_document_id": None}
    values = {name: (getattr(found, name), value) for name, value in wanted.items()}
    return {name: value for name, (value, right) in values.items() if (value or None) != right}


def require_unchanged(found: DeploymentResponse, made: RunnerDeployment) -> None:
    """Refuse a run of a deployment with code changed on the server.

    Raises:
        LadderError: It is so.
    """
    if changed := changed_code(found, made):
        raise LadderError(
            f"the deployment {made.flow_name}/{made.name} is not as Ladder registered it: {', '.join(sorted(changed))} changed on the "
            "server. Somebody has tried to run other code; the run was not started. A restart of `ladder serve` registers it anew."
        )


async def restore(client: PrefectClient, deployment: UUID, made: RunnerDeployment) -> None:
    """Restore a deployment's code; Prefect's own registration leaves some changes in place."""
    from prefect.client.schemas.actions import DeploymentUpdate

    if changed := changed_code(await client.read_deployment(deployment), made):
        log.warning("%s/%s: %s had been changed on the server; set back", made.flow_name, made.name, ", ".join(sorted(changed)))
        right = {"pull_steps": None, "path": None, "entrypoint": made.entrypoint}
        await client.update_deployment(deployment, DeploymentUpdate(**right))


def _limit(offered: Deployment) -> int | ConcurrencyLimitConfig | None:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy

    if offered.concurrency_limit is None or offered.beyond_limit == "wait":
        return offered.concurrency_limit
    return ConcurrencyLimitConfig(limit=offered.concurrency_limit, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)


def schedule_of(timetable: Timetable) -> SCHEDULE_TYPES:
    """The schedule as Prefect's type.

    Raises:
        ValidationError: The cron expression or the rule is invalid.
    """
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

    if timetable.cron is not None:
        return CronSchedule(cron=timetable.cron, timezone=timetable.timezone)
    if timetable.rrule is not None:
        return RRuleSchedule(rrule=timetable.rrule, timezone=timetable.timezone)
    assert timetable.interval is not None
    # In a zone that changes its clock, Prefect 3.8 finds other times before the change than after it, and days with two runs.
    return IntervalSchedule(interval=timedelta(seconds=timetable.interval), timezone="UTC")


async def apply_schedules(home: Home, client: PrefectClient, deployment: UUID, offered: Deployment) -> None:
    """Apply the changes of the file to a deployment's schedules: create or update new and changed entries, delete removed ones.

    All others stay as they are on the server, where somebody may have paused, changed, deleted or added some. The entries applied last
    are stored in the home under the deployment's id, which is unique across servers and registrations.
    """
    memory = home.root / "schedules.json"
    applied: dict[str, dict[str, str]] = read_json(memory) if memory.is_file() else {}
    before = applied.get(str(deployment), {})
    existing = {each.slug: each for each in await client.read_deployment_schedules(deployment) if each.slug}
    now = {timetable.slug: _hash(timetable) for timetable in offered.schedules}
    for timetable in offered.schedules:
        if before.get(timetable.slug) != now[timetable.slug]:
            await _set(client, deployment, timetable, existing[timetable.slug].id if timetable.slug in existing else None)
    for slug in before.keys() - now.keys() & existing.keys():
        await client.delete_deployment_schedule(deployment, existing[slug].id)
    _remember(memory, {**applied, str(deployment): now})


async def _set(client: PrefectClient, deployment: UUID, timetable: Timetable, schedule: UUID | None) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    values = {"schedule": schedule_of(timetable), "active": timetable.active, "parameters": timetable.parameters, "slug": timetable.slug}
    if schedule is None:
        await client.create_deployment_schedules(deployment, [DeploymentScheduleCreate(**values)])
    else:
        await client.update_deployment_schedule(deployment, schedule, **values)


def _hash(timetable: Timetable) -> str:
    return hashlib.sha256(timetable.model_dump_json().encode()).hexdigest()


def _remember(memory: Path, applied: dict[str, dict[str, str]]) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)  # `ladder deploy` may be the first command of a home
    write_atomic(memory, json.dumps(applied, indent=1))
