"""Hosts in network namespaces of their own, each joined by a cable with one server and with nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import pytest


class Hosts:
    """Namespaces `server` and those of the hosts.

    Args:
        names: Of the hosts.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._prefix = f"ladder{os.getpid()}"

    def namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def command(self, name: str, *command: str) -> list[str]:
        """A command that runs on a host."""
        return ["ip", "netns", "exec", self.namespace(name), *command]

    def server_address(self, name: str) -> str:
        """Address of the server as a host sees it."""
        return f"10.77.{self.names.index(name)}.1"

    def plug(self, name: str, *, into: bool) -> None:
        """Plug the cable of a host in, or pull it."""
        end = self._cable(name)
        subprocess.run(self.command("server", "ip", "link", "set", f"{end}s", "up" if into else "down"), check=True)

    def freeze(self, name: str, *, still: bool) -> None:
        """Stop all processes of a host, or let them go on."""
        for pid in self._pids(name):
            os.kill(pid, signal.SIGSTOP if still else signal.SIGCONT)

    def make(self) -> None:
        for name in ("server", *self.names):
            self._ip("netns", "add", self.namespace(name))
            self._ip("-n", self.namespace(name), "link", "set", "lo", "up")
        for number, name in enumerate(self.names):
            end = self._cable(name)
            ends = [(f"{end}s", "server", f"10.77.{number}.1/24"), (f"{end}h", name, f"10.77.{number}.2/24")]
            self._ip("link", "add", ends[0][0], "type", "veth", "peer", "name", ends[1][0])
            for device, where, address in ends:
                self._ip("link", "set", device, "netns", self.namespace(where))
                self._ip("-n", self.namespace(where), "addr", "add", address, "dev", device)
                self._ip("-n", self.namespace(where), "link", "set", device, "up")

    def remove(self) -> None:
        """End what still runs on the hosts, and remove them."""
        for name in ("server", *self.names):
            for pid in self._pids(name):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", self.namespace(name)], check=False, capture_output=True)

    def _pids(self, name: str) -> list[int]:
        listed = subprocess.run(["ip", "netns", "pids", self.namespace(name)], check=False, capture_output=True, text=True)
        return [int(pid) for pid in listed.stdout.split()]

    def _cable(self, name: str) -> str:
        return f"l{os.getpid() % 10**7}{self.names.index(name)}"

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def hosts(*names: str) -> Iterator[Hosts]:
    """Namespaces until the end of the block; the test is skipped where they are not permitted."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("hosts are network namespaces, which only root may make, with iproute2's `ip`")
    made = Hosts(names)
    with ExitStack() as stack:
        stack.callback(made.remove)
        try:
            made.make()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not permitted here: {error.stderr.decode().strip()}")
        yield made
