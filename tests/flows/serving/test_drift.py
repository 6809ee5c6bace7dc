"""The automation that starts `redistill` at a drop: made once, fired by the event, left as people set it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.flows.driver import ask_prefect, clean_environment, run_python, wait_for

pytestmark = pytest.mark.processes

NAME = "ladder-redistill-of-a-test"  # `ladder deploy` in another test makes one of the real name on the same server
OFFER = f"""
import asyncio, json, sys
from pathlib import Path
from prefect.client.orchestration import get_client
from conf.loading.deployments import load_deployments
from conf.home import Home
from flows.serving.deployments import build
from flows.serving import drift

drift.NAME = "{NAME}"

async def offer():
    offered = next(each for each in load_deployments().deployments if each.flow == "redistill")
    async with get_client() as client:
        identifier = await build(offered.model_copy(update={{"name": sys.argv[2]}})).aapply()
        await drift.offer_automation(Home(Path(sys.argv[1])), client, identifier)
        return str(identifier)

print(json.dumps([asyncio.run(offer()), drift.is_automated()]))
"""
EMIT = """
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
emit_event(
    event="ladder.drift",
    resource={"prefect.resource.id": "ladder.model.tiny-one", "prefect.resource.name": "tiny-one/3"},
    payload={"cause": "tiny-one/3:20260101T04", "diagnosis": "distil again", "why": "quality fell by 9 %.", "window": "w"},
)
EventsWorker.instance().drain()
"""


def automations(api: str) -> list[dict[str, Any]]:
    found = ask_prefect("POST", f"{api}/automations/filter", json={}).raise_for_status().json()
    return [each for each in found if each["name"] == NAME]


def test_a_drop_starts_the_deployment_with_its_cause(prefect_api: str, tmp_path: Path) -> None:
    env = clean_environment(PREFECT_API_URL=prefect_api, PREFECT_HOME=str(tmp_path / "prefect"), LADDER_HOME=str(tmp_path))
    deployment, on = json.loads(run_python(OFFER, tmp_path, "test-drift", env=env).out.splitlines()[-1])
    assert on
    [made] = automations(prefect_api)
    run_python(EMIT, env=env)
    wanted = {"deployments": {"id": {"any_": [deployment]}}}

    def started() -> list[dict[str, Any]]:
        return ask_prefect("POST", f"{prefect_api}/flow_runs/filter", json=wanted).raise_for_status().json()

    [run] = wait_for(started, "the flow run of the automation", 90)
    expected = {
        "name": "tiny-one",
        "cause": "tiny-one/3:20260101T04",
        "diagnosis": "distil again",
        "reason": "quality fell by 9 %.",
    }
    assert {key: run["parameters"][key] for key in expected} == expected
    ask_prefect("PATCH", f"{prefect_api}/automations/{made['id']}", json={"enabled": False}).raise_for_status()
    again = json.loads(run_python(OFFER, tmp_path, "test-drift", env=env).out.splitlines()[-1])
    assert again == [deployment, False], "switched off by a person, it stays off"
    ask_prefect("DELETE", f"{prefect_api}/automations/{made['id']}").raise_for_status()
    assert json.loads(run_python(OFFER, tmp_path, "test-drift", env=env).out.splitlines()[-1]) == [deployment, False]
    assert automations(prefect_api) == [], "deleted by a person, it does not come back"
