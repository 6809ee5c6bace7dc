"""Place of this process among those of a training, from the environment.

Variables as torch.distributed.run sets them.
"""

from __future__ import annotations

import os


def process_count() -> int:
    """Processes that share this training; 1: no launcher started it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Number of this process among them, 0 for the one that writes."""
    return int(os.environ.get("RANK", "0"))


def place_on_machine() -> int:
    """Number of this process among those on this machine, which is also that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))
