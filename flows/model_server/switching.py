"""Follow an alias: a new champion is loaded beside the old one, then answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from conf.errors import reason_of
from flows.model_server.metrics import Metrics
from flows.model_server.serving import Load, ModelSource, Serving
from tasks.runtime.logs import log

POLL_SECONDS = 5.0


@dataclass
class Follower:
    """Looks at the registry at intervals. One that is away, or a version that does not load, leaves the old model serving.

    Attributes:
        label_now: Asks the registry for the label behind the alias.
        source_of: Opens the version of a label; in a thread, like the above.
        load: Loads it.
        serving: Told of the new one.
        metrics: Told of switches and of the registry.
        seconds: Between two looks.
        failed: Label -> why it did not load. It is not tried again while the alias stays on it.
        away: Why the registry did not answer; None: it did.
    """

    label_now: Callable[[], str]
    source_of: Callable[[str], ModelSource]
    load: Load
    serving: Serving
    metrics: Metrics
    seconds: float = POLL_SECONDS
    failed: dict[str, str] = field(default_factory=dict)
    away: str | None = None

    async def run(self) -> None:
        """Look until it is cancelled."""
        self.metrics.registry_up.set(1)
        while True:
            await asyncio.sleep(self.seconds)
            await self.look()

    async def look(self) -> None:
        """Ask once, and switch where there is another version."""
        try:
            label = await asyncio.to_thread(self.label_now)
        except Exception as error:  # noqa: BLE001  a registry fails in any way; the model that is loaded needs none
            if self.away is None:
                log.warning("the registry does not answer; %s goes on serving (%s)", self.serving.current.source.label, reason_of(error))
            self.away = reason_of(error)
            self.metrics.registry_up.set(0)
            return
        if self.away is not None:
            log.info("the registry answers again")
        self.away = None
        self.metrics.registry_up.set(1)
        self.failed = {name: reason for name, reason in self.failed.items() if name == label}
        if label != self.serving.current.source.label and label not in self.failed:
            await self._switch(label)

    async def _switch(self, label: str) -> None:
        log.info("loading %s beside %s", label, self.serving.current.source.label)
        try:
            new = await asyncio.to_thread(lambda: self.load(self.source_of(label)))
        except Exception as error:  # noqa: BLE001  any failure leaves the old model serving, and is told
            self.failed[label] = reason_of(error)
            self.metrics.switches.labels("failed").inc()
            log.error("%s does not load; %s goes on serving: %s", label, self.serving.current.source.label, reason_of(error))
            return
        self.serving.switch(new)
        self.metrics.switches.labels("done").inc()
