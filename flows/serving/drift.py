"""Automation of Prefect's server that starts `redistill` at the event of a drop."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

from conf.atomic import write_atomic
from conf.home import Home
from models.base.files import read_json
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import AWAY

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

NAME = "ladder-redistill"
DRIFT = "ladder.drift"
MODEL = "ladder.model."  # a resource of these events, before the model's name
MEMORY = "automations.json"
TEMPLATES = {
    "name": "{{ event.resource.id.removeprefix('" + MODEL + "') }}",
    "cause": "{{ event.payload.cause }}",
    "diagnosis": "{{ event.payload.diagnosis }}",
    "reason": "{{ event.payload.why[:1000] }}",
}


def automation(deployment: UUID) -> dict[str, Any]:
    """The automation, in Prefect's own format."""
    return {
        "name": NAME,
        "description": "A monitor found a drop of a promoted model: its ladder goes back to work.",
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "expect": [DRIFT],
            "match": {"prefect.resource.id": f"{MODEL}*"},
            "for_each": ["prefect.resource.id"],
            "threshold": 1,
            "within": 0,
        },
        "actions": [
            {
                "type": "run-deployment",
                "source": "selected",
                "deployment_id": str(deployment),
                "parameters": {key: {"__prefect_kind": "jinja", "template": text} for key, text in TEMPLATES.items()},
            }
        ],
    }


async def offer_automation(home: Home, client: PrefectClient, deployment: UUID) -> None:
    """Make the automation for a deployment of `redistill` once; where somebody has deleted or changed it on the server, it stays so."""
    from prefect.events.schemas.automations import AutomationCore

    memory = home.root / MEMORY
    known: dict[str, str] = read_json(memory) if memory.is_file() else {}
    if str(deployment) in known:
        return
    core = AutomationCore.model_validate(automation(deployment))
    found = await client.read_automations_by_name(NAME)
    if found:
        await client.update_automation(found[0].id, core)
    else:
        await client.create_automation(core)
    write_atomic(memory, json.dumps({**known, str(deployment): NAME}, indent=1))
    log.info("%s: a drop that a monitor reports starts redistill; switch it off under Automations", NAME)


def is_automated() -> bool:
    """Whether a configured server has the automation, switched on; no where none answers."""
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            return any(each.enabled for each in client.read_automations_by_name(NAME))
    except AWAY:
        return False
