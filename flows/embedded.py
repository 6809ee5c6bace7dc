"""The process of the embedded Prefect server: serves until its standard input ends, which is when the run's process ends, however it ends.

Run by path, apart from the rest of the project: `python -P flows/embedded.py DESCRIPTOR`, the descriptor being a listening socket.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time

PATIENCE_SECONDS = 5


def end_with_parent() -> None:
    """Wait for the end of standard input, then end this process: in good order, or else at once."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_SECONDS)
    os._exit(1)


def main() -> None:
    """Serve Prefect's API on the socket that was handed over."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    import uvicorn

    listening = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
