"""A program that answers jobs, one a line, and ends with its parent process."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from conf.home import Home, home
from conf.locks import job_lock


@contextmanager
def in_use(own: Home) -> Iterator[None]:
    """Have nothing removed that was last used after this: the run itself may be on another machine, and its lock with it."""
    own.locks.mkdir(parents=True, exist_ok=True)
    lock = job_lock(own.locks)
    with lock:
        yield
    Path(lock.lock_file).unlink(missing_ok=True)


def answer_lines(answer: Callable[[str], str]) -> NoReturn:
    """Answer the lines of standard input, each with a line; whatever `answer` prints goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which ends this one
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    threading.Thread(target=read, daemon=True).start()
    while True:
        line = lines.get()
        with in_use(home()):
            answered = answer(line)
        answers.write(answered + "\n")
        answers.flush()
