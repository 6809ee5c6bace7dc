"""Retry policy for transient errors: no connection, timeout, HTTP 429 or 5xx."""

from __future__ import annotations

import sys
from collections.abc import Iterator

# Errors of the network, each library's own; a library that is not loaded has raised none.
NETWORK = {
    "httpx": ("TransportError",),
    "httpx2": ("TransportError",),
    "requests": ("ConnectionError", "Timeout"),
    "aiohttp": ("ClientConnectionError",),
    "urllib3.exceptions": ("HTTPError",),
}


def is_transient(error: BaseException) -> bool:
    """Whether a remote source may work later: no connection, no answer in time, HTTP 429 or 5xx.

    The causes of an error count as the error itself, since libraries wrap them. Offline mode is not transient.
    """
    chain = list(_chain(error))
    if any("OfflineModeIsEnabled" in f"{type(link).__name__} {link}" for link in chain):  # `datasets` only names it in its own error
        return False
    statuses = [status for link in chain if (status := getattr(getattr(link, "response", None), "status_code", None))]
    if statuses:
        return any(status in (408, 429) or status >= 500 for status in statuses)
    network = tuple(getattr(sys.modules[name], kind) for name, kinds in NETWORK.items() if name in sys.modules for kind in kinds)
    return any(isinstance(link, (ConnectionError, TimeoutError, *network)) for link in chain)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
