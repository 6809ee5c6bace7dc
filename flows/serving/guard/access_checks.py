"""Checks of requests to both servers: host, origin, content type, password.

Loaded by path, apart from the rest of the project, by `parent_watchdog.py`; standard library alone. docs/security.md says which attack
each check refuses.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Refusal = tuple[int, str]

VARIABLE = "LADDER_ACCESS"  # holds the arguments of `AccessChecks` as JSON, for the process of a server
ANY_ADDRESS = "*"  # among the hosts: every numeric address, as a server on all interfaces needs it
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# What a page of a foreign origin can send without asking first: https://fetch.spec.whatwg.org/#cors-safelisted-request-header
FORM_TYPES = ("", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded")
PLACE = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^\s:/?#@\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
HEADERS = {b"x-frame-options": b"SAMEORIGIN", b"x-content-type-options": b"nosniff", b"referrer-policy": b"same-origin"}


class AccessChecks:
    """An application behind checks of every request.

    Args:
        app: The application.
        hosts: Names and addresses that a `Host` header may have, without ports; against DNS rebinding.
        password: `user:password` that every request must bring; None: the application asks itself, or nobody does.
        open_paths: Paths that need no password, such as the health address.
        closed: Beginnings of paths that do not exist for anybody.
    """

    def __init__(
        self, app: App, hosts: Sequence[str], password: str | None = None, open_paths: Sequence[str] = (), closed: Sequence[str] = ()
    ) -> None:
        self.app, self.hosts, self.password = app, [host.lower() for host in hosts], password
        self.open_paths, self.closed = tuple(open_paths), tuple(closed)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Refuse a request that fails a check; pass on every other one."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif (refused := self._refusal(scope)) is None:
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refused[1][:120]})
        else:
            await _answer(send, *refused)

    def _refusal(self, scope: MutableMapping[str, Any]) -> Refusal | None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        method = scope.get("method", "GET") if scope["type"] == "http" else "WEBSOCKET"
        return self._host(headers) or self._origin(headers, method) or self._content(headers, method) or self._login(headers, scope, method)

    def _host(self, headers: dict[str, list[str]]) -> Refusal | None:
        given = headers.get("host", [])
        if len(given) == 1 and self._known(given[0]):
            return None
        return 400, "This server does not answer to that name. LADDER_HOSTS lists further names, where `ladder serve` is started."

    def _known(self, place: str) -> bool:
        """Whether a `name:port` is one of this server's, as far as the name goes."""
        if (parts := PLACE.fullmatch(place)) is None:
            return False
        name = parts["name"].lower().strip("[]").rstrip(".")
        return name in self.hosts or (ANY_ADDRESS in self.hosts and _is_address(name))

    def _origin(self, headers: dict[str, list[str]], method: str) -> Refusal | None:
        port = PLACE.sub(r"\g<port>", headers["host"][0])
        for origin in headers.get("origin", []):
            scheme, _, place = origin.partition("://")
            if scheme not in ("http", "https") or not self._known(place) or PLACE.sub(r"\g<port>", place) != port:
                return 403, "Requests of pages of other origins are refused."
        if headers.get("sec-fetch-site") == ["cross-site"] and method not in SAFE_METHODS:
            return 403, "Requests of pages of other sites are refused."
        return None

    @staticmethod
    def _content(headers: dict[str, list[str]], method: str) -> Refusal | None:
        if method in SAFE_METHODS or method in ("WEBSOCKET", "DELETE") or "origin" in headers:  # our own origin, as was checked
            return None
        empty = headers.get("content-length", ["0"]) == ["0"] and "transfer-encoding" not in headers
        kind = headers.get("content-type", [""])[0].partition(";")[0].strip().lower()
        if empty or kind not in FORM_TYPES or (method == "PUT" and kind):
            return None
        return 415, "Send Content-Type: application/json; a form of another page cannot."

    def _login(self, headers: dict[str, list[str]], scope: MutableMapping[str, Any], method: str) -> Refusal | None:
        path = scope["path"]
        if any(path.lower().startswith(beginning) for beginning in self.closed):
            return 404, "This part of the server is switched off."
        if self.password is None or (path in self.open_paths and method in SAFE_METHODS) or self._right(headers.get("authorization", [])):
            return None
        return 401, "Log in as the output of `ladder serve` says."

    def _right(self, given: list[str]) -> bool:
        """Whether the password is right: as `user:password`, or all of that as the password of any user."""
        assert self.password is not None
        if len(given) != 1 or not given[0].lower().startswith("basic "):
            return False
        try:
            told = base64.b64decode(given[0][6:].strip(), validate=True)
        except binascii.Error:
            return False
        wanted = self.password.encode()
        return hmac.compare_digest(told, wanted) | hmac.compare_digest(told.partition(b":")[2], wanted)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message.get("headers", [])}
            message["headers"] = [*message.get("headers", []), *(item for item in HEADERS.items() if item[0] not in there)]
        await send(message)

    return sending


async def _answer(send: Send, status: int, text: str) -> None:
    body = json.dumps({"detail": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS.items()]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="Ladder", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
