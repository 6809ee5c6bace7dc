"""The client of the fork server: a command in a process that was forked.

As a script, `forked.py ADDRESS ARGS...`, it is `ladder` without the second that imports take. It uses the standard library alone.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path


class Forked:
    """A command in a process that was forked, with the interface of `subprocess.Popen`."""

    def __init__(self, address: str, args: list[str], env: dict[str, str], cwd: Path, out: int, err: int, code: str = "") -> None:
        self.args = args
        self.returncode: int | None = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(address)
        request = json.dumps({"args": args, "env": env, "cwd": str(cwd), "code": code}).encode()
        socket.send_fds(self._connection, [len(request).to_bytes(8)], [out, err])
        self._connection.sendall(request)
        self.pid = int.from_bytes(read_exactly(self._connection, 8))

    def poll(self) -> int | None:
        """The exit code, None while it runs; the negative number of the signal that has killed it."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; returns the exit code."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = int.from_bytes(read_exactly(self._connection, 8), signed=True)
            except TimeoutError:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def read_exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes from the other side."""
    found = b""
    while len(found) < count:
        more = connection.recv(count - len(found))
        assert more, "the other side has closed the connection"
        found += more
    return found


def main(address: str, *args: str) -> int:
    """Run `ladder` with `args` as this process would: with its files, environment and folder, and with the signals that it gets."""
    process = Forked(address, list(args), dict(os.environ), Path.cwd(), 1, 2)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: process.send_signal(received))
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
