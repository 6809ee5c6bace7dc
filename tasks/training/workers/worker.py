"""One of the processes that share a training; gets the folder of its order."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import psutil
import torch

from conf.atomic import write_atomic
from conf.errors import LadderError, RunCancelled, UserError
from models.base.processes import place_on_machine, process_rank
from tasks.runtime import cancellation as stopping
from tasks.training.train_model import train_model, write_model
from tasks.training.workers.events import EventWriter
from tasks.training.workers.launch import MODEL, OUTCOME, STOP, WORK, WorkerOrder, versions


def main(folder: Path) -> None:
    """Share a training; the first process writes the model and the outcome.

    Whatever a user can mend or ask for is an outcome, with exit code 0; anything else ends the process with an error, after which the
    launcher starts all workers anew.
    """
    writes = process_rank() == 0
    resumed_at, error = None, None
    with EventWriter(folder) if writes else nullcontext() as events:
        try:
            resumed_at = _train(folder, events)
        except LadderError as found:
            error = found
    if writes:
        kind = "" if error is None else RunCancelled.__name__ if isinstance(error, RunCancelled) else type(error).__name__
        write_atomic(folder / OUTCOME, json.dumps({"kind": kind, "text": str(error or ""), "resumed_at": resumed_at}))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _train(folder: Path, events: EventWriter | None) -> int | None:
    order: WorkerOrder = pickle.loads((folder / WORK).read_bytes())  # written by the run, in its own home
    if order.versions != versions():
        said = " and ".join(f"{name} {version}" for name, version in order.versions.items())
        raise UserError.about("compute.launcher", f"a worker with {versions()}", said, "Install the same versions for all workers.")
    if torch.cuda.is_available():
        torch.cuda.set_device(place_on_machine())
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

    def should_stop() -> bool:
        return stopping.requested() or (folder / STOP).exists() or not psutil.pid_exists(order.owner)

    if events:
        events.write(begins=True)
    inputs, show = order.inputs, events.on_step if events else None
    corpus = inputs.data.corpus()
    finished = train_model(order.work, inputs.ladder, corpus, inputs.context, order.checkpoints, show=show, should_stop=should_stop)
    if process_rank() == 0:
        shutil.rmtree(folder / MODEL, ignore_errors=True)
        (folder / MODEL).mkdir()
        write_model(folder / MODEL, order.work, order.fingerprint, finished, inputs.data)
    return finished.trained.resumed_at


if __name__ == "__main__":
    main(Path(sys.argv[1]))
