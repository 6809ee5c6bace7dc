"""The checks in front of both servers, on an application that answers everything."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import pytest

from flows.serving.guard.access_checks import ANY_ADDRESS, AccessChecks
from flows.serving.server_processes import hosts_of

BASE = "http://127.0.0.1:4200"
PASSWORD = "ladder:a-password"


async def yes(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        return
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"DENY")] if scope["path"] == "/own" else []}
    )
    await send({"type": "http.response.body", "body": b"yes"})


def ask(checks: AccessChecks, method: str = "POST", path: str = "/api/x", **more: Any) -> httpx.Response:
    async def asking() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(checks), base_url=BASE) as client:
            return await client.request(method, path, **more)

    return asyncio.run(asking())


CHECKS = AccessChecks(yes, hosts_of("127.0.0.1"))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:4200", 200),
        ("localhost:4200", 200),
        ("LOCALHOST", 200),
        ("[::1]:4200", 200),
        ("localhost.:4200", 200),
        ("rebound.example:4200", 400),
        ("127.0.0.1.rebound.example", 400),
        ("localhost@rebound.example", 400),
        ("rebound.example:4200@127.0.0.1:x", 400),
        ("192.168.0.7:4200", 400),
        ("127.0.0.1:999999", 400),
        ("[::1", 400),
        ("", 400),
    ],
)
def test_a_name_that_leads_here_from_elsewhere_is_refused(host: str, status: int):
    assert ask(CHECKS, json={}, headers={"Host": host}).status_code == status


def test_a_server_for_all_interfaces_answers_to_every_address_and_to_no_foreign_name(monkeypatch):
    monkeypatch.setenv("LADDER_HOSTS", "ladder.example, ")
    checks = AccessChecks(yes, hosts_of("0.0.0.0"))
    assert ANY_ADDRESS in checks.hosts
    assert ask(checks, json={}, headers={"Host": "192.168.0.7:4200"}).status_code == 200
    assert ask(checks, json={}, headers={"Host": "ladder.example"}).status_code == 200
    assert ask(checks, json={}, headers={"Host": "rebound.example"}).status_code == 400


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (BASE, 200),
        ("http://localhost:4200", 200),
        ("http://127.0.0.1:4201", 403),  # another user's server on this machine
        ("http://127.0.0.1", 403),
        ("http://elsewhere.example:4200", 403),
        ("null", 403),
        ("http://[::1", 403),
        ("file://127.0.0.1:4200", 403),
    ],
)
def test_a_page_of_another_origin_is_refused_whatever_it_sends(method: str, origin: str, status: int):
    assert ask(CHECKS, method, json={}, headers={"Origin": origin}).status_code == status


def test_a_browser_that_names_no_origin_is_refused_by_its_other_word():
    assert ask(CHECKS, json={}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert ask(CHECKS, "GET", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200, "a link to a page"


@pytest.mark.parametrize(
    ("method", "kind", "status"),
    [
        ("POST", "application/json", 200),
        ("PATCH", "application/json; charset=utf-8", 200),
        ("POST", "application/x-protobuf", 200),
        ("PUT", "text/plain", 200),  # an artifact; a page would have to ask first, and is told no
        ("POST", None, 415),
        ("PUT", None, 415),
        ("PATCH", None, 415),
        ("POST", "text/plain", 415),
        ("POST", "Text/Plain;charset=UTF-8", 415),
        ("POST", "application/x-www-form-urlencoded", 415),
        ("POST", "multipart/form-data; boundary=x", 415),
    ],
)
def test_a_write_in_a_type_that_a_form_can_send_is_refused(method: str, kind: str | None, status: int):
    headers = {"Content-Type": kind} if kind else {}
    assert ask(CHECKS, method, content=b"{}", headers=headers).status_code == status
    assert ask(CHECKS, method, headers=headers).status_code == 200, "without a body there is nothing to read"


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (basic(PASSWORD), 200),
        (basic(f"anybody:{PASSWORD}"), 200),
        ({}, 401),
        (basic("ladder:another"), 401),
        (basic("ladder:"), 401),
        (basic("a-password"), 401),
        (basic("ladder:a-password "), 401),
        ({"Authorization": "Bearer " + PASSWORD}, 401),
        ({"Authorization": "Basic !!!"}, 401),
        ({"Authorization": "Basic"}, 401),
    ],
)
def test_the_password_is_asked_for(headers: dict[str, str], status: int):
    checks = AccessChecks(yes, hosts_of("127.0.0.1"), PASSWORD, open_paths=["/health"], closed=["/assistant"])
    assert ask(checks, json={}, headers=headers).status_code == status
    assert ask(checks, "GET", "/health", headers=headers).status_code == 200
    assert ask(checks, "GET", "/health/x", headers=headers).status_code == status
    assert ask(checks, "GET", "/Assistant/config", headers=headers).status_code == 404


def test_answers_may_not_be_framed_and_a_login_is_asked_for_as_browsers_know_it():
    assert ask(CHECKS, "GET").headers["x-frame-options"] == "SAMEORIGIN"
    assert ask(CHECKS, "GET", "/own").headers.get_list("x-frame-options") == ["DENY"]
    refused = ask(AccessChecks(yes, hosts_of("127.0.0.1"), PASSWORD), "GET")
    assert refused.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ([(b"host", b"127.0.0.1:4200")], True),
        ([(b"host", b"127.0.0.1:4200"), (b"origin", b"http://127.0.0.1:4200")], True),
        ([(b"host", b"127.0.0.1:4200"), (b"origin", b"http://elsewhere.example")], False),
        ([(b"host", b"rebound.example:4200")], False),
        ([(b"host", b"127.0.0.1:4200"), (b"host", b"127.0.0.1:4200")], False),
        ([], False),
    ],
)
def test_a_websocket_is_checked_alike(headers: list[tuple[bytes, bytes]], accepted: bool):
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(CHECKS({"type": "websocket", "path": "/api/events/out", "headers": headers}, receive, send))
    assert sent == ["websocket.accept" if accepted else "websocket.close"]
