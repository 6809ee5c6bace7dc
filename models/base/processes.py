"""Place of this process among those of a training, from the environment.

Variables as torch.distributed.run sets them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from conf.errors import RunCancelled

POLL_SECONDS = 0.1
_attempt = "0"


def process_count() -> int:
    """Processes that share this training; 1: no launcher started it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Number of this process among them, 0 for the one that writes."""
    return int(os.environ.get("RANK", "0"))


def place_on_machine() -> int:
    """Number of this process among those on this machine, which is also that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def name_attempt(name: str) -> None:
    """Tell this process the name of its attempt, which all of the training's processes share: a later attempt has another one."""
    global _attempt
    _attempt = name


def wait_for_all(folder: Path, name: str, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Wait until all processes of this training have come to a place; nothing where there is one.

    By files, since a process may take hours until it is there, and no collective operation waits so long.

    Args:
        folder: That all processes see, of this training alone.
        name: Of the place.
        should_stop: Asked while waiting.

    Raises:
        RunCancelled: `should_stop` returned True.
    """
    if process_count() == 1:
        return
    (folder / f"{name}-{_attempt}-{process_rank()}").touch()
    others = [folder / f"{name}-{_attempt}-{rank}" for rank in range(process_count())]
    while not all(path.exists() for path in others):
        if should_stop():
            raise RunCancelled("while it waited for the other workers")
        time.sleep(POLL_SECONDS)
