"""Whether a training can be shared by worker processes."""

from __future__ import annotations

import os

import torch

from conf.errors import UserError
from conf.schema.compute import Compute
from conf.schema.stage.objective import Objective
from conf.schema.stage.training import Training
from models.training.step import check_whole_batches
from tasks.training.workers.on_ray import ADDRESS, require_ray


def check_workers(compute: Compute, training: Training, objective: Objective | None, name: str) -> None:
    """Refuse more workers than can share a step or than there are GPUs, and what several processes cannot compute.

    Args:
        compute: With `workers`.
        training: Of the model.
        objective: Of the model; None: it has no teacher.
        name: Of the model, for the message.

    Raises:
        UserError: Naming the setting; or Ray is missing.
    """
    if compute.launcher == "ray":
        require_ray()
    check_whole_batches(objective, training, compute.processes)
    if compute.processes == 1:
        return
    if compute.strategy == "fsdp" and objective is not None and objective.features:
        allowed = f"ddp for {name}, whose objective has losses on hidden states or attention"
        raise UserError.about("compute.strategy", "fsdp", allowed, "Set strategy: ddp, or leave objective.features out.")
    shares = training.batch_size // training.accumulation
    if compute.processes > shares:
        each = f" for each of {compute.nodes} machines" if compute.nodes > 1 else ""
        allowed = f"at most {shares // compute.nodes}, the examples of a micro-batch of {name}{each}"
        raise UserError.about("compute.workers", compute.workers, allowed, "Lower it, or raise training.batch_size.")
    elsewhere = compute.launcher == "ray" and ADDRESS in os.environ  # the cluster is asked when training begins
    cards = 0 if elsewhere or compute.device == "cpu" else torch.cuda.device_count()
    if cards and compute.workers > cards:
        raise UserError.about("compute.workers", compute.workers, f"at most {cards}, the GPUs of this machine", "Lower it.")
