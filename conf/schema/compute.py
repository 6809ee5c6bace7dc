"""Settings of devices, threads, concurrency and worker processes."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from conf.schema.base import Settings, setting

Strategy = Literal["ddp", "fsdp"]


class Compute(Settings):
    """Device, threads, concurrency, and the processes that share a training; none of it is in a fingerprint."""

    device: Literal["auto", "cpu", "cuda"] = setting("auto", "auto: a GPU where there is one", identity=False)
    threads: int | None = setting(None, "Processor threads; none: one for each core", "threads", identity=False, ge=1, le=4_096)
    at_once: int | None = setting(
        1, "Trainings at the same time on this machine; further runs wait; none: no limit", "trainings", identity=False, ge=1, le=4_096
    )
    restarts: int = setting(0, "How often `ladder serve` restarts a run whose process died", "restarts", identity=False, ge=0, le=100)
    launcher: Literal["local", "torchrun", "ray"] = setting(
        "local",
        "local: a training runs in the process of its run; torchrun, ray: in `workers` processes, started by torch.distributed.run or by "
        "Ray Train",
        identity=False,
        added=True,
    )
    workers: int = setting(
        1,
        "Processes that share each training, one for each GPU where there are any; on each machine (torchrun), or in all (ray)",
        "processes",
        identity=False,
        added=True,
        ge=1,
        le=4_096,
    )
    strategy: Strategy = setting(
        "ddp",
        "ddp: every worker holds the whole student; fsdp: its weights, gradients and moments are spread over the workers (torchrun, ray)",
        identity=False,
        added=True,
    )
    max_failures: int = setting(
        1,
        "How often all workers of a training are started anew, from its last checkpoint, after one has died (torchrun, ray)",
        "failures",
        identity=False,
        added=True,
        ge=0,
        le=1_000,
    )

    nodes: int = setting(
        1,
        "Most machines that share each training, each with `workers` processes; the others run `ladder join` (torchrun)",
        "machines",
        identity=False,
        added=True,
        ge=1,
        le=4_096,
    )
    rendezvous: str | None = setting(
        None,
        "HOST:PORT where the machines of a training meet, on the machine of the run; needed with several nodes (torchrun)",
        identity=False,
        added=True,
        allowed="HOST:PORT",
        pattern=r"^[^\s:/]+:\d{1,5}$",
    )

    @property
    def processes(self) -> int:
        """Most processes that share a training, on all machines together."""
        return self.workers * self.nodes

    @model_validator(mode="after")
    def _nodes_meet(self) -> Compute:
        asked = f"got nodes {self.nodes} with"
        if self.nodes > 1 and self.launcher != "torchrun":
            raise ValueError(f"{asked} launcher {self.launcher!r}; allowed: 1. Set launcher: torchrun, or leave nodes out.")
        if (self.nodes > 1) != (self.rendezvous is not None):
            both = "several nodes with HOST:PORT of the run's machine, or neither"
            raise ValueError(f"{asked} rendezvous {self.rendezvous!r}; allowed: {both}. Set both, or leave both out.")
        return self

    @model_validator(mode="after")
    def _workers_have_a_launcher(self) -> Compute:
        if self.workers > 1 and self.launcher == "local":
            raise ValueError(f"got workers {self.workers} with launcher 'local'; allowed: 1. Set launcher: torchrun, or leave workers out.")
        if self.strategy == "fsdp" and self.launcher == "local":
            raise ValueError("got strategy 'fsdp' with launcher 'local'; allowed: ddp. Set launcher: torchrun, or leave strategy out.")
        return self
