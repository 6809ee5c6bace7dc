"""The processes that `ladder serve` keeps running.

Each leads a group of its own, ends when it is told to or when `ladder serve` is gone, and is started again when it dies.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conf.errors import LadderError
from tasks.console import log

DEATHS, DEATHS_SECONDS = 5, 600.0  # more deaths in this time, and it is not started again
GROUP_SECONDS = 10.0


@dataclass
class Child:
    """One process and its group.

    Attributes:
        name: How messages call it.
        command: What runs.
        env: Its environment.
        journal: File that takes what it prints.
        ready: Whether it does its work.
        stdin: Read end of the pipe whose end is its own; None: a pipe of its own, which `close` closes.
        descriptors: Open files that it takes over.
        process: Set by `start`.
        deaths: When it died, by the monotonic clock.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    journal: Path
    ready: Callable[[], bool]
    stdin: int | None = None
    descriptors: Sequence[int] = ()
    process: subprocess.Popen[bytes] | None = None
    deaths: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start it, in a session of its own, so that Ctrl-C at the terminal does not reach it."""
        with self.journal.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=self.env,
                stdin=subprocess.PIPE if self.stdin is None else self.stdin,
                stdout=output,
                stderr=output,
                pass_fds=self.descriptors,
                start_new_session=True,
            )

    @property
    def code(self) -> int | None:
        """Exit code; None while it runs."""
        return self.process.poll() if self.process else None

    def revive(self) -> None:
        """Start it again if it has died.

        Raises:
            LadderError: It has died too often.
        """
        if self.code is None:
            return
        self.deaths = [*(when for when in self.deaths if when > time.monotonic() - DEATHS_SECONDS), time.monotonic()]
        if len(self.deaths) > DEATHS:
            raise LadderError(f"{self.name} died {len(self.deaths)} times in {DEATHS_SECONDS / 60:.0f} minutes: {self.last_words()}")
        log.warning("%s has died (%s); it is started again", self.name, self.last_words())
        self.end_group()
        self.start()

    def close(self) -> None:
        """Tell it to end, by the end of a standard input of its own."""
        if self.process and self.process.stdin:
            self.process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Wait for its end, at most so long, then end what is left of it and its children at once."""
        if self.process is None:
            return
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            log.warning("%s did not end in %.0f s and is killed", self.name, seconds)
        self.kill()

    def kill(self) -> None:
        """End it and its children at once."""
        if self.process:
            self._signal(signal.SIGKILL)
            self.process.wait()

    def end_group(self) -> None:
        """End the children of a process that has died: first so that they can write their checkpoints."""
        self._signal(signal.SIGTERM)
        until = time.monotonic() + GROUP_SECONDS
        while self._signal(0) and time.monotonic() < until:
            time.sleep(0.1)
        self._signal(signal.SIGKILL)

    def last_words(self) -> str:
        """The last line that it printed."""
        said = self.journal.read_text(errors="replace").strip().splitlines() if self.journal.is_file() else []
        return f"exit code {self.code}, {self.journal} ends with: {said[-1].strip() if said else 'nothing'}"

    def _signal(self, number: int) -> bool:
        assert self.process is not None
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return False
        return True
