"""End this process when its parent ends: standard input is a pipe from it.

Run by path, apart from the rest of the project: `python -P parent_watchdog.py SERVER DESCRIPTOR` serves Prefect or MLflow, behind
`access_checks.py`, on a listening socket, whose port so stays taken while the server is started again.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FACTORIES = {"prefect": "prefect.server.api.server:create_app", "mlflow": "tasks.tracking.server:create_app"}
PATIENCE_SECONDS = 5.0


def end_with_parent(patience: float = PATIENCE_SECONDS) -> None:
    """Wait for the end of standard input, then end this process and its children: in good order, or else at once.

    Called in a thread of a process that leads a group of its own.
    """
    os.read(0, 1)  # not through `sys.stdin`, whose lock a thread must not hold when Python ends
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(patience)
    os.killpg(0, signal.SIGKILL)


def serve(server: str, descriptor: int) -> None:
    """Serve Prefect or MLflow on the socket that was handed over; the environment says with which checks, pages and services."""
    import uvicorn
    from uvicorn.importer import import_from_string

    access = runpy.run_path(str(HERE / "access_checks.py"))
    checks = json.loads(os.environ.pop(access["VARIABLE"]))
    if server == "prefect":
        runpy.run_path(str(HERE / "sqlite_transactions.py"))["begin_immediate"]()

    def make() -> Any:
        return access["AccessChecks"](import_from_string(FACTORIES[server])(), **checks)

    config = uvicorn.Config(make, factory=True, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def main() -> None:
    """Watch standard input and serve as the command line says."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    serve(sys.argv[1], int(sys.argv[2]))


if __name__ == "__main__":
    main()
