"""One of the processes that share a training; gets the folder of its order."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import psutil
import torch

from conf.atomic import write_atomic
from conf.errors import LadderError, RunCancelled, UserError
from conf.home import disk_errors
from models.base.files import read_json
from models.base.processes import place_on_machine, process_rank
from tasks.runtime import cancellation as stopping
from tasks.training.train_model import train_model, write_model
from tasks.training.workers.events import EventWriter
from tasks.training.workers.launch import MODEL, OUTCOME, POLL_SECONDS, STOP, VERSIONS, WORK, WorkerOrder, versions


def main(folder: Path) -> None:
    """Share a training; the first process writes the model and the outcome.

    Whatever a user can mend or ask for is an outcome, whichever process found it, with exit code 0; anything else ends the process with an
    error, after which the launcher starts all workers anew.
    """
    writes = process_rank() == 0
    with EventWriter(folder) if writes else nullcontext() as events:
        try:
            resumed_at = _train(folder, events)
        except LadderError as error:
            kind = RunCancelled.__name__ if isinstance(error, RunCancelled) else type(error).__name__
            _end(folder, kind, str(error))
        else:
            if writes:
                _end(folder, "", "", resumed_at)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _end(folder: Path, kind: str, text: str, resumed_at: int | None = None) -> None:
    write_atomic(folder / OUTCOME, json.dumps({"kind": kind, "text": text, "resumed_at": resumed_at}))


def _train(folder: Path, events: EventWriter | None) -> int | None:
    wanted, here = read_json(folder / VERSIONS), versions()
    if wanted != here:
        said, got = (", ".join(f"{name} {version}" for name, version in each.items()) for each in (wanted, here))
        raise UserError.about("compute.launcher", f"a worker with {got}", said, "Install the same versions for all workers.")
    order: WorkerOrder = pickle.loads((folder / WORK).read_bytes())  # written by the run, in its own home
    if torch.cuda.is_available():
        torch.cuda.set_device(place_on_machine())
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    threading.Thread(target=_watch, args=(folder, order.owner), daemon=True).start()
    if events:
        events.write(begins=True)
    inputs, show = order.inputs, events.on_step if events else None
    with disk_errors(inputs.context.paths):
        finished = train_model(order.work, inputs.ladder, inputs.data.corpus(), inputs.context, order.checkpoints, show=show)
        if process_rank() == 0:
            shutil.rmtree(folder / MODEL, ignore_errors=True)
            (folder / MODEL).mkdir()
            write_model(folder / MODEL, order.work, order.fingerprint, finished, inputs.data)
    return finished.trained.resumed_at


def _watch(folder: Path, owner: int) -> None:
    """Stop the training, or the filling of a cache, when the run asks for it or is gone."""
    while psutil.pid_exists(owner) and not (folder / STOP).exists():
        time.sleep(POLL_SECONDS)
    stopping.cancel()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
