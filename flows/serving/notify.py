"""`ladder notify`: a webhook called by automations of Prefect's server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from conf.errors import UserError
from conf.home import home
from conf.served import served

AUTOMATIONS = Path(__file__).parents[2] / "conf" / "automations.yaml"
BLOCK = "ladder-webhook"
USUAL_PAGES = "http://127.0.0.1:4200"  # in the file; Prefect's own `ui_url` is empty on a server without a configured address
EVENTS = ("failed", "stopped", "approval", "done")


def notify(url: str, on: Sequence[str]) -> list[str]:
    """Have the server call `url` on these events, and on no others; repeated, it updates the automations.

    Args:
        url: Address of the webhook. The server stores it in a block, as a secret.
        on: Some of failed, stopped, approval, done.

    Returns:
        Names of the automations that are set up now.

    Raises:
        UserError: The address is invalid, an event is unknown, or there is no server.
    """
    check_url(url)
    from prefect.blocks.webhook import Webhook
    from prefect.client.orchestration import get_client
    from prefect.events.schemas.automations import AutomationCore
    from pydantic import SecretStr

    pages = _pages(_require_server())
    block_id = Webhook(url=SecretStr(url)).save(BLOCK, overwrite=True)
    wanted = {f"ladder-{word}" for word in on}
    described = yaml.safe_load(AUTOMATIONS.read_text(encoding="utf-8").replace(USUAL_PAGES, pages))["automations"]
    with get_client(sync_client=True) as client:
        for automation in described:
            for action in automation["actions"]:
                action["block_document_id"] = str(block_id)
            core = AutomationCore.model_validate(automation)
            first, *others = [*client.read_automations_by_name(core.name), None]
            if core.name not in wanted:
                others.append(first)
            elif first is None:
                client.create_automation(core)
            else:
                client.update_automation(first.id, core)
            for other in others:
                if other is not None:
                    client.delete_automation(other.id)
    return sorted(wanted)


def remove() -> list[str]:
    """Remove the automations and the block; returns their names.

    Raises:
        UserError: There is no server.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    _require_server()
    gone = []
    with get_client(sync_client=True) as client:
        for name in (f"ladder-{word}" for word in EVENTS):
            for automation in client.read_automations_by_name(name):
                client.delete_automation(automation.id)
                gone.append(name)
        try:
            client.delete_block_document(client.read_block_document_by_name(BLOCK, "webhook").id)
            gone.append(BLOCK)
        except ObjectNotFound:
            pass
    return gone


def chosen(text: str) -> tuple[str, ...]:
    """The events that `--on` names.

    Raises:
        UserError: One of them is unknown, or there is none.
    """
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words or not set(words) <= set(EVENTS):
        raise UserError.about("--on", text, f"some of {', '.join(EVENTS)}, separated by commas", "Leave it out for all of them.")
    return words


def check_url(url: str) -> None:
    """Check the address of a webhook.

    Raises:
        UserError: It is no http:// or https:// address.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0 and not any(map(str.isspace, url))
    except ValueError:  # an invalid port, or half an IPv6 address
        good = False
    if not good:
        raise UserError.about("URL", url, "an http:// or https:// address", "For instance https://hooks.example.org/T000/B000.")


def _pages(api: str) -> str:
    """Address of the server's pages, for links in messages."""
    up = served(home())
    ours = up.prefect_ui if up and up.prefect_api == api else api.rstrip("/").removesuffix("/api")
    return (os.environ.get("PREFECT_UI_URL") or ours).rstrip("/")


def _require_server() -> str:
    """Address of the API of the server, which answers.

    Raises:
        UserError: There is none.
    """
    from prefect.settings import get_current_settings

    from flows.serving.embedded.server import check_server

    url = get_current_settings().api.url
    if not url:
        remedy = "Start `ladder serve`, or set PREFECT_API_URL: notifications are sent by a server that stays."
        raise UserError.about("notify", "no server", "a running Prefect server", remedy)
    check_server(url)
    return url
