"""One of the processes that share a training; gets the folder of its order."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import threading
import time
import uuid
from contextlib import nullcontext
from pathlib import Path

import psutil
import torch
from accelerate.utils import broadcast_object_list

from conf.errors import LadderError, RunCancelled
from conf.home import disk_errors
from models.base.device import resolve_device
from models.base.processes import name_attempt, place_on_machine, process_count, process_rank
from models.training.loop import accelerator_for
from tasks.runtime import cancellation as stopping
from tasks.runtime.logs import log
from tasks.training.train_model import train_model, write_model
from tasks.training.workers.events import EventWriter
from tasks.training.workers.order import MODEL, POLL_SECONDS, STOP, WORK, WorkerOrder, check_versions, machine, write_outcome


def main(folder: Path) -> None:
    """Share a training; the first process writes the model and the outcome.

    Whatever a user can mend or ask for is an outcome, whichever process found it; anything else ends the process with an error, after which
    the launcher starts all workers anew.
    """
    writes = process_rank() == 0
    with EventWriter(folder) if writes else nullcontext() as events:
        try:
            resumed_at = _train(folder, events)
        except LadderError as error:
            if isinstance(error, RunCancelled) and not (folder / STOP).exists():
                raise  # the launcher stops this worker, or one of another machine, and the run goes on
            write_outcome(folder, error)
        else:
            if writes:
                write_outcome(folder, None, resumed_at)


def _train(folder: Path, events: EventWriter | None) -> int | None:
    check_versions(folder)
    order: WorkerOrder = pickle.loads((folder / WORK).read_bytes())  # written by the run, in its own home
    if torch.cuda.is_available():
        torch.cuda.set_device(place_on_machine())
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    threading.Thread(target=_watch, args=(folder, order), daemon=True).start()
    if process_count() > 1:
        _meet(order)
    if events:
        events.write(begins=True)
        if (compute := order.inputs.ladder.compute).nodes > 1:
            log.info("%s: trains on %d of %d machines", order.work.name, process_count() // compute.workers, compute.nodes)
    inputs, show = order.inputs, events.on_step if events else None
    with disk_errors(inputs.context.paths):
        finished = train_model(order.work, inputs.ladder, inputs.data.corpus(), inputs.context, order.checkpoints, show=show)
        if process_rank() == 0:
            shutil.rmtree(folder / MODEL, ignore_errors=True)
            (folder / MODEL).mkdir()
            write_model(folder / MODEL, order.work, order.fingerprint, finished, inputs.data)
    return finished.trained.resumed_at


def _meet(order: WorkerOrder) -> None:
    """Join the other workers, and agree with them on a name of this attempt, of which no launcher tells all machines the same."""
    accelerator_for(resolve_device(order.inputs.ladder.compute.device), "fp32")
    name_attempt(broadcast_object_list([uuid.uuid4().hex])[0])


def _watch(folder: Path, order: WorkerOrder) -> None:
    """Stop the training, or the filling of a cache, when the run asks for it or is gone, or the launcher of this worker is."""
    launcher, here = os.getppid(), order.machine == machine()
    while os.getppid() == launcher and not (folder / STOP).exists():
        if here and not psutil.pid_exists(order.owner):
            (folder / STOP).touch()
        time.sleep(POLL_SECONDS)
    stopping.cancel()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
