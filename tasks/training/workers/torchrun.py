"""Start the workers of a training by torch.distributed.run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from conf.schema.compute import Compute

WORKER = "tasks.training.workers.worker"


def command(folder: Path, compute: Compute) -> list[str]:
    """The launcher's command; it starts all workers anew after one has died."""
    options = ["--standalone", f"--nproc-per-node={compute.workers}", f"--max-restarts={compute.max_failures}"]
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", WORKER, str(folder)]


def environment() -> dict[str, str]:
    """Variables for the launcher; a worker's neighbours are on this machine."""
    # With a shared store, workers that are started anew may read addresses of those before them (torch 2.13).
    return {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo")}
