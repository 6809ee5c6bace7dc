"""Two hosts that share an object store and nothing else, one of which is cut off in the middle of its work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.hosts import Hosts, hosts
from tests.machine import ROOT, kill, read_line
from tests.s3 import SERVE_BUCKET, s3_environment
from tests.tasks.store.remote.machines import MACHINE

pytestmark = [pytest.mark.processes, pytest.mark.slow]
IMPATIENT = """
from tasks.store.remote import bucket
bucket.PAUSES, bucket.CONNECT_SECONDS, bucket.READ_SECONDS, bucket.HURRIED_SECONDS = (0.1, 0.1), 0.5, 0.5, 0.5
"""


@contextmanager
def started(command: list[str], **variables: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            kill(process)


def read_until(process: subprocess.Popen[str], words: str) -> list[str]:
    lines = [read_line(process)]
    while words not in lines[-1]:
        assert process.poll() is None, lines
        lines.append(read_line(process))
    return lines


def test_a_host_that_is_cut_off_passes_its_work_on_and_loses_nothing(tmp_path: Path) -> None:
    with hosts("a", "b") as made, ExitStack() as stack:
        server = stack.enter_context(started(made.command("server", sys.executable, "-c", SERVE_BUCKET, "0.0.0.0", "5000")))
        assert read_line(server) == "serving"

        def run(where: str, run: str, how: str = "at once") -> subprocess.Popen[str]:
            variables = s3_environment(f"http://{made.server_address(where)}:5000", "shared") | {"LADDER_STORE_LEASE": "2"}
            command = [sys.executable, "-c", IMPATIENT + MACHINE, str(tmp_path / where), run, how]
            return stack.enter_context(started(made.command(where, *command), **variables))

        first = run("a", "run-a", "wait")
        assert read_line(first) == "computing"
        second = run("b", "run-b")
        assert "run-a on " in read_line(second)
        made.plug("a", into=False)
        assert read_until(second, "made run-b")[-2] == "computing"
        (tmp_path / "a.go").touch()
        alone = read_until(first, "made run-a")
        assert any("cannot be renewed" in line for line in alone)
        assert any("The next run that finds a result here uploads it." in line for line in alone)
        made.plug("a", into=True)
        again = read_until(run("a", "run-a2"), "reused")
        assert again[-1] == "reused run-a"
        assert any("stays in use, though" in line and "run-b" in line for line in again)
        assert read_line(run("b", "run-b2")) == "reused run-b"


def test_a_pulled_cable_separates(tmp_path: Path) -> None:
    with hosts("a", "b") as made:
        assert reaches(made, "a")
        made.plug("a", into=False)
        assert (reaches(made, "a"), reaches(made, "b")) == (False, True)
        made.plug("a", into=True)
        assert reaches(made, "a")


def reaches(made: Hosts, name: str) -> bool:
    """Whether packets get through; those right after a cable is plugged in are lost, and sent again after a second and after three."""
    code = "import socket, sys; s = socket.socket(); s.settimeout(5); print(s.connect_ex((sys.argv[1], 9)))"
    command = made.command(name, sys.executable, "-c", code, made.server_address(name))
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "111"  # refused: somebody is there
