"""`ladder join`: share the trainings of other machines that use the same home."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from conf.atomic import write_atomic
from conf.errors import UserError
from conf.home import Home
from conf.schema.base import Settings
from conf.schema.compute import Compute
from models.base.device import threads_each
from tasks.training.work import TOGETHER
from tasks.training.workers import torchrun
from tasks.training.workers.order import OUTCOME, STOP, check_versions
from tasks.training.workers.rendezvous import answers

OPEN, REFUSED = "open.json", "refused-"
POLL_SECONDS, PATIENCE = 1.0, 60.0  # PATIENCE: of Ctrl-C, for the workers' checkpoint


class OpenTraining(Settings):
    """A training that other machines may share."""

    name: str
    compute: Compute


def announce(folder: Path, name: str, compute: Compute) -> None:
    """Open the order in a folder to other machines."""
    write_atomic(folder / OPEN, OpenTraining(name=name, compute=compute).model_dump_json())


def refusals(folder: Path) -> Iterator[str]:
    """Refusals by machines that may not join, each once."""
    for path in sorted(folder.glob(f"{REFUSED}*.txt")):
        yield path.read_text(encoding="utf-8")
        path.rename(path.with_suffix(".read"))


def join(home: Home, say: Callable[[str], None]) -> None:
    """Share one training after the other, until the process is interrupted; then the workers of all machines write a checkpoint.

    Args:
        home: That this machine and those of the runs see.
        say: Takes a line.

    Raises:
        UserError: This machine has another version, or fewer GPUs than a run asks of each machine.
    """
    while True:
        if not any(_shared(folder, say) for folder in _orders(home)):
            time.sleep(POLL_SECONDS)


def _orders(home: Home) -> list[Path]:
    """Folders of the orders that are open, the oldest first."""
    found = [path.parent for path in home.store.glob(f"checkpoints/*/{TOGETHER}/{OPEN}")]
    return sorted((folder for folder in found if not any((folder / end).exists() for end in (OUTCOME, STOP))), key=_age)


def _age(folder: Path) -> float:
    try:
        return (folder / OPEN).stat().st_mtime
    except OSError:  # it has just ended
        return 0.0


def _shared(folder: Path, say: Callable[[str], None]) -> bool:
    """Share the training in a folder, if its run is there."""
    try:
        training = OpenTraining.model_validate_json((folder / OPEN).read_text(encoding="utf-8"))
        if not training.compute.rendezvous or not answers(training.compute.rendezvous):
            return False
        _share(folder, training, say)
    except FileNotFoundError:  # it has just ended
        return False
    return True


def _share(folder: Path, training: OpenTraining, say: Callable[[str], None]) -> None:
    compute, host = training.compute, socket.gethostname()
    try:
        check_versions(folder)
        cards = torch.cuda.device_count() if compute.device != "cpu" else 0
        if cards and compute.workers > cards:
            raise UserError.about("compute.workers", compute.workers, f"at most {cards}, the GPUs of this machine", "Lower it.")
    except UserError as error:
        write_atomic(folder / f"{REFUSED}{host}.txt", f"{host} does not join: {error}")
        raise
    say(f"{training.name}: joins the training at {compute.rendezvous}")
    env = os.environ | {"OMP_NUM_THREADS": str(threads_each(compute, compute.workers))} | torchrun.environment(compute)
    command, said = torchrun.command(folder, compute, joins=True), folder / f"launcher-{host}.log"
    with said.open("ab") as output:
        # A session of its own: Ctrl-C reaches this process alone, which has the launcher end.
        launcher = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
        code = launcher.wait()
    except BaseException:
        launcher.terminate()
        try:
            launcher.wait(PATIENCE)
        finally:
            launcher.kill()
        raise
    say(f"{training.name}: left the training" + (f", which failed here: {said}" if code else ""))
