"""`ladder deploy`: register the deployments on a work pool."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.errors import LadderError, UserError
from conf.home import Home, home
from conf.loading.deployments import load_deployments
from conf.loading.introspect import suggest
from flows.serving.environment import for_runs, prepare_environment
from tasks.runtime.logs import log, show_logs

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient


def deploy(pool: str, deployments: Path | None, variables: Sequence[str]) -> list[str]:
    """Register the deployments on a work pool, schedules included; repeated, it updates them.

    Args:
        pool: Name of the work pool.
        deployments: File of deployments; None: the shipped one.
        variables: Job variables, `key=value`: `image=registry/ladder:1`.

    Returns:
        A line for each deployment: its full name, the pool, and where it ran before.

    Raises:
        UserError: No server is configured or served, there is no such pool, or the file is wrong.
        LadderError: The server does not answer.
    """
    loaded, place = load_deployments(deployments), home()
    job_variables = dict(_variable(text) for text in variables)
    show_logs()
    log.info("registering the deployments on work pool %s; loading Prefect", pool)
    prepare_environment(place)
    from prefect.settings import get_current_settings

    from flows.serving.deployments import check
    from flows.serving.embedded.server import check_server

    url = get_current_settings().api.url
    if url is None:
        remedy = "Start `ladder serve`, or set it: workers on other machines must reach the same server."
        raise UserError.about("PREFECT_API_URL", None, "the API of a Prefect server that stays", remedy)
    check_server(url)
    check(loaded)
    import httpx

    try:
        return asyncio.run(_deploy(place, pool, loaded.deployments, job_variables))
    except httpx.HTTPError as error:
        raise LadderError(f"Prefect's server at {url} failed: {error or type(error).__name__}") from None


def _variable(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError.about("--job-variable", text, "key=value", "For instance image=registry/ladder:1.")
    return key, value


async def _deploy(place: Home, pool: str, offered: Sequence[Any], variables: dict[str, str]) -> list[str]:
    from prefect.client.orchestration import get_client

    from flows.serving.deployments import apply_schedules, build
    from flows.serving.drift import offer_automation

    names = []
    async with get_client() as client:
        await _require_pool(client, pool)
        for one in offered:
            made = build(one, pool, {"env": for_runs(), **variables})
            moved = await _moved_from(client, f"{made.flow_name}/{made.name}", pool)
            identifier = await made.aapply()
            await apply_schedules(place, client, identifier, one)
            if one.flow == "redistill":
                await offer_automation(place, client, identifier)
            names.append(f"{made.flow_name}/{made.name} on {pool}{moved}")
    return names


async def _moved_from(client: PrefectClient, name: str, pool: str) -> str:
    """The pool of a deployment until now, in words; empty where it is new, or on this pool already."""
    from prefect.exceptions import ObjectNotFound

    try:
        before = await client.read_deployment_by_name(name)
    except ObjectNotFound:
        return ""
    if before.work_pool_name == pool:
        return ""
    return (
        f", moved from {f'pool {before.work_pool_name}' if before.work_pool_name else '`ladder serve`, which starts no more of its runs'}"
    )


async def _require_pool(client: PrefectClient, pool: str) -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        await client.read_work_pool(pool or " ")  # an empty name would list all pools
    except ObjectNotFound:
        pools = [existing.name for existing in await client.read_work_pools()]
        remedy = f"{suggest(pool, pools)}Make one with `prefect work-pool create --type process {pool}`; see docs/how-to/deploy.md."
        raise UserError.about("--work-pool", pool, ", ".join(pools) or "a work pool; there is none yet", remedy) from None
