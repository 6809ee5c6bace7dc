"""End this process when its parent ends: standard input is a pipe from it.

Run by path, apart from the rest of the project: `python -P parent_watchdog.py DESCRIPTOR` serves Prefect on a listening socket, whose
port so stays taken while the server is started again; `python -P parent_watchdog.py MODULE [ARGUMENT]...` is `python -m MODULE`.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys
import threading
import time
from pathlib import Path

PATIENCE_SECONDS = 5.0


def end_with_parent(patience: float = PATIENCE_SECONDS) -> None:
    """Wait for the end of standard input, then end this process and its children: in good order, or else at once.

    Called in a thread of a process that leads a group of its own.
    """
    os.read(0, 1)  # not through `sys.stdin`, whose lock a thread must not hold when Python ends
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(patience)
    os.killpg(0, signal.SIGKILL)


def serve_prefect(descriptor: int) -> None:
    """Serve Prefect on the socket that was handed over; the environment says whether with its pages and its scheduler."""
    import uvicorn

    runpy.run_path(str(Path(__file__).with_name("sqlite_transactions.py")))["begin_immediate"]()
    listening = socket.socket(fileno=descriptor)
    config = uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[listening])


def main() -> None:
    """Watch standard input and do what the command line says."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.argv = sys.argv[1:]
    if sys.argv[0].isdecimal():
        serve_prefect(int(sys.argv[0]))
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
