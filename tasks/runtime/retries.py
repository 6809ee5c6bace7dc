"""What may pass by itself: a source that does not answer is asked again, with growing pauses; a mistake is not made a second time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from prefect.client.schemas.objects import State
from prefect.tasks import exponential_backoff

from conf.errors import TransientError
from tasks.runtime.logs import log

RETRIES, FIRST_PAUSE = 3, 8.0  # seconds, doubled each time: about a minute in all
# Errors of the network, each library's own; a library that is not loaded has raised none.
NETWORK = {
    "httpx": ("TransportError",),
    "httpx2": ("TransportError",),
    "requests": ("ConnectionError", "Timeout"),
    "aiohttp": ("ClientConnectionError",),
    "urllib3.exceptions": ("HTTPError",),
}


def is_transient(error: BaseException) -> bool:
    """Whether an error tells of something outside that may work later: no connection, no answer in time, HTTP 429 or 5xx.

    Errors are judged with what caused them, since libraries wrap them. Being offline on purpose does not pass.
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


def _should_retry(task: Any, run: Any, state: State[Any]) -> bool:
    error = state.data
    if isinstance(error, TransientError):
        log.warning("%s Trying again.", error)
    return isinstance(error, TransientError)


# For tasks that reach outside; a training is never tried again, nor is anything deterministic.
RETRY: dict[str, Any] = {
    "retries": RETRIES,
    "retry_delay_seconds": exponential_backoff(FIRST_PAUSE),
    "retry_jitter_factor": 0.3,
    "retry_condition_fn": _should_retry,
}
