"""Child processes that `ladder serve` supervises and restarts.

Each leads a process group of its own, ends on request or with `ladder serve`, and is restarted when it dies.
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

DEATHS, DEATHS_SECONDS = 5, 600.0  # with more deaths in this time it is not restarted
GROUP_SECONDS = 10.0


@dataclass
class Child:
    """One process and its group.

    Attributes:
        name: Its name in messages.
        command: Program and arguments.
        env: Its environment.
        journal: File that gets its output.
        ready: Whether it is ready for work.
        stdin: Read end of a shared pipe, whose closing ends it; None: a pipe of its own, which `close` closes.
        descriptors: Open files that it inherits.
        outlived: Whether its children continue when it dies, in their group, which its replacement joins.
        process: Set by `start`.
        deaths: Times of its deaths, by the monotonic clock.
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
        """Start the process in a group of its own, out of reach of Ctrl-C at the terminal."""
        try:
            self.process = self._open(self.group if self.outlived else 0)
        except PermissionError:  # the group is empty and exists no more
            self.process = self._open(0)
        self.group = os.getpgid(self.process.pid)

    @property
    def code(self) -> int | None:
        """Exit code; None while it runs."""
        return self.process.poll() if self.process else None

    def revive(self) -> None:
        """Restart the process where it has died.

        Raises:
            LadderError: It has died too often.
        """
        if self.code is None:
            return
        self.deaths = [*(when for when in self.deaths if when > time.monotonic() - DEATHS_SECONDS), time.monotonic()]
        if len(self.deaths) > DEATHS:
            raise LadderError(f"{self.name} died {len(self.deaths)} times in {DEATHS_SECONDS / 60:.0f} minutes: {self.last_line()}")
        log.warning("%s has died (%s); it is restarted", self.name, self.last_line())
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
        """Ask the process to end, by closing its standard input."""
        if self.process and self.process.stdin:
            self.process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Wait for its end, at most so long, then kill it, and end the rest of its process group."""
        if self.process is None:
            return
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            log.warning("%s did not end in %.0f s and is killed", self.name, seconds)
            self.kill()
        self.end_group()

    def kill(self) -> None:
        """Kill it and its children."""
        if self.process:
            self._signal(signal.SIGKILL)
            self.process.wait()

    def end_group(self) -> None:
        """End the children of a process that has died: by SIGTERM, which lets them write checkpoints, then by SIGKILL."""
        self._signal(signal.SIGTERM)
        until = time.monotonic() + GROUP_SECONDS
        while self._signal(0) and time.monotonic() < until:
            time.sleep(0.1)
        self._signal(signal.SIGKILL)

    def last_line(self) -> str:
        """Its exit code and the last line of its output."""
        lines = self.journal.read_text(errors="replace", encoding="utf-8").strip().splitlines() if self.journal.is_file() else []
        return f"exit code {self.code}, {self.journal} ends with: {lines[-1].strip() if lines else 'nothing'}"

    def _signal(self, number: int) -> bool:
        try:
            os.killpg(self.group, number)
        except ProcessLookupError:
            return False
        return True
