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
from tasks.runtime.logs import log

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
        outlived: Whether its children go on when it dies, in their group, which the process that is started in its place joins.
        process: Set by `start`.
        deaths: When it died, by the monotonic clock.
        group: Its process group; set by `start`.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    journal: Path
    ready: Callable[[], bool]
    stdin: int | None = None
    descriptors: Sequence[int] = ()
    outlived: bool = False
    process: subprocess.Popen[bytes] | None = None
    deaths: list[float] = field(default_factory=list)
    group: int = 0

    def start(self) -> None:
        """Start it, in a group of its own, so that Ctrl-C at the terminal does not reach it."""
        try:
            self.process = self._open(self.group if self.outlived else 0)
        except PermissionError:  # nobody is left in the group, so it is none any more
            self.process = self._open(0)
        self.group = os.getpgid(self.process.pid)

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
        if not self.outlived:
            self.end_group()
        self.start()

    def _open(self, group: int) -> subprocess.Popen[bytes]:
        with self.journal.open("ab") as output:
            return subprocess.Popen(
                self.command,
                env=self.env,
                stdin=subprocess.PIPE if self.stdin is None else self.stdin,
                stdout=output,
                stderr=output,
                pass_fds=self.descriptors,
                process_group=group,
            )

    def close(self) -> None:
        """Tell it to end, by the end of a standard input of its own."""
        if self.process and self.process.stdin:
            self.process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Wait for its end, at most so long, then end what is left of it: at once, or so that runs can write their checkpoints."""
        if self.process is None:
            return
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            log.warning("%s did not end in %.0f s and is killed", self.name, seconds)
            self.kill()
        self.end_group()

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
        try:
            os.killpg(self.group, number)
        except ProcessLookupError:
            return False
        return True
