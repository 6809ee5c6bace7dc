"""Access control of a model server: its host names, and a token."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from conf.errors import UserError
from flows.model_server.refusals import Refused
from flows.serving.guard.access_checks import AccessChecks, App, Receive, Send
from flows.serving.server_processes import hosts_of

OPEN = ("/health", "/ready")  # for probes, which tell no secret
SHORTEST = 16  # characters of a token


def read_token(path: Path) -> str:
    """The token in a file for its owner alone; a missing file is made with a new one.

    Raises:
        UserError: Others may read the file, or it holds no token.
    """
    key = "--token-file"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise UserError.about(key, str(path), "a file in an existing folder", f"{error.strerror}.") from None
    else:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    try:
        mode, text = stat.S_IMODE(path.stat().st_mode), path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError.about(key, str(path), "a readable file with one token", f"{error}.") from None
    if mode & 0o077:
        raise UserError.about(key, f"{path} with mode {mode:o}", "a file that its owner alone may read", f"Run `chmod 600 {path}`.")
    if len(text) < SHORTEST or not text.isascii() or len(text.split()) != 1:
        allowed = f"one word of at least {SHORTEST} ASCII characters"
        raise UserError.about(key, f"{path} (content not shown)", allowed, "Remove the file to have a token made.")
    return text


class TokenCheck:
    """An application behind a bearer token.

    Args:
        app: The application.
        token: What every request must bring.
    """

    def __init__(self, app: App, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Hand a request on, or refuse it with 401."""
        if scope["type"] == "http" and scope["path"] not in OPEN and not self._right(scope):
            refused = Refused(401, "A token is needed: send `Authorization: Bearer TOKEN`.", None, "invalid_api_key").response
            refused.headers["WWW-Authenticate"] = "Bearer"
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _right(self, scope: MutableMapping[str, Any]) -> bool:
        given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        if len(given) != 1 or given[0][:7].lower() != b"bearer ":
            return False
        return hmac.compare_digest(given[0][7:].strip(), self._token)


def guarded(app: App, host: str, token: str | None) -> App:
    """An application behind its checks: names of this server against DNS rebinding, no pages of other origins, the token."""
    return AccessChecks(TokenCheck(app, token) if token else app, hosts_of(host))
