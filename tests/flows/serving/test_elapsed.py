"""Elapsed seconds of a start: in log lines, and beside a spinner on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

from tests.flows.driver import clean_environment

CODE = """
import time
from flows.serving.elapsed import elapsed
from tasks.runtime.logs import show_logs
show_logs()
with elapsed("the server", line_seconds=0.2):
    time.sleep(1.5)
"""


def test_a_log_counts_the_seconds_in_lines_of_its_own():
    done = subprocess.run([sys.executable, "-c", CODE], env=clean_environment(), capture_output=True, text=True, check=True)
    lines = [line.partition(" ")[2] for line in done.stderr.splitlines()]
    assert lines[0] == "starting the server"
    assert set(lines[1:-1]) == {"the server: starting for 0 s", "the server: starting for 1 s"}
    assert re.fullmatch(r"the server: ready after 1\.[5-9] s|the server: ready after [2-9]\.\d s", lines[-1]), lines[-1]
    assert done.stdout == ""


def test_a_terminal_counts_them_in_its_last_line():
    ours, theirs = pty.openpty()
    env = clean_environment(TERM="xterm-256color", COLUMNS="80")
    with subprocess.Popen([sys.executable, "-c", CODE], env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "starting the server 0:00:01" in text
    assert "starting for" not in text
    assert "the server: ready after " in text.splitlines()[-1] + text.splitlines()[-2]
