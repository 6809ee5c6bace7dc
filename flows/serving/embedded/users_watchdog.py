"""Serve Prefect until nobody has used the server for a while.

Run by path, apart from the rest of the project: `python -P users_watchdog.py SOCKET START USERS SECONDS` serves on a listening socket while
processes share the lock of the file USERS, and for so many seconds more. While it ends it holds that lock alone: who wants to use the
server waits, and finds that it is gone. START is a locked descriptor, closed when the server answers.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import runpy
import signal
import socket
import sys
import threading
import time
from pathlib import Path

POLL_SECONDS, PATIENCE_SECONDS = 0.5, 5.0


def end_without_users(path: Path, seconds: float) -> None:
    """End this process group after so many seconds without users, or with its home."""
    lock, used = os.open(path, os.O_RDWR), time.monotonic()
    while True:
        time.sleep(POLL_SECONDS)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            used = time.monotonic()
            continue
        if time.monotonic() - used >= seconds or not is_same(path, lock):
            break
        fcntl.flock(lock, fcntl.LOCK_UN)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def close_when_up(descriptor: int, start: int) -> None:
    """Release the lock of starts when the server answers on its socket."""
    host, port = socket.socket(fileno=os.dup(descriptor)).getsockname()[:2]
    connection = http.client.HTTPConnection(host, port)
    connection.request("GET", "/api/health")  # the socket listens already
    connection.getresponse().read()
    connection.close()
    os.close(start)


def is_same(path: Path, descriptor: int) -> bool:
    """Whether a file is still at its path."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except OSError:
        return False


def main() -> None:
    """Watch the users and serve."""
    descriptor, start, users, seconds = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
    threading.Thread(target=end_without_users, args=(users, seconds), daemon=True).start()
    threading.Thread(target=close_when_up, args=(descriptor, start), daemon=True).start()
    runpy.run_path(str(Path(__file__).parents[1] / "guard" / "parent_watchdog.py"))["serve"]("prefect", descriptor)


if __name__ == "__main__":
    main()
