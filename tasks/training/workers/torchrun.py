"""Start workers by torch.distributed.run, here or on several machines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from conf.schema.compute import Compute
from tasks.training.workers import rendezvous

WORKER = "tasks.training.workers.worker"


def command(folder: Path, compute: Compute, *, joins: bool = False) -> list[str]:
    """The command of a machine's launcher; it starts all its workers anew after one has died.

    Args:
        folder: Of the order.
        compute: Of the run.
        joins: This machine is not that of the run.
    """
    options = ["--standalone"] if compute.rendezvous is None else _meeting(folder, compute, compute.rendezvous, joins)
    options += [f"--nproc-per-node={compute.workers}", f"--max-restarts={compute.max_failures}"]
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", WORKER, str(folder)]


def _meeting(folder: Path, compute: Compute, place: str, joins: bool) -> list[str]:
    """Options of a launcher that meets others.

    From one machine up to all: with a fixed number a training would wait for a machine that died.
    """
    return [
        f"--nnodes=1:{compute.nodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={place}",
        f"--rdzv-id={folder.parent.name}",
        f"--rdzv-conf=is_host={int(not joins)}",
        f"--local-addr={rendezvous.own_address(place)}",
    ]


def environment(compute: Compute) -> dict[str, str]:
    """Variables for the launcher: the interface by which its workers talk, that of this machine alone where there is no other."""
    alone = {"GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo")}
    ways = alone if compute.rendezvous is None else rendezvous.interfaces(compute.rendezvous)
    # With a shared store (torch 2.13), workers that are started anew may read addresses of those before them, and machines that join
    # later wait for one that is not written again.
    return {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", **ways}
