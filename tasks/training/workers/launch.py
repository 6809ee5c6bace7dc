"""Train a model in several processes, started by torch.distributed.run or by Ray.

The run itself trains nothing then: it writes the work into a folder, starts the launcher, shows and records the steps of the first worker,
passes a request to stop on, and takes the finished model's folder. Work and inputs travel by cloudpickle, between processes of one
installation.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import cloudpickle
import psutil

from conf import errors
from conf.errors import LadderError, RunCancelled
from conf.schema.compute import Compute
from models.base.device import threads_each
from models.base.files import read_json
from tasks.runtime import cancellation as stopping
from tasks.runtime.logs import log
from tasks.runtime.progress import TrainingProgress
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.cached import Write
from tasks.training.train_model import stage_curves
from tasks.training.work import TOGETHER, Work
from tasks.training.workers import on_ray, torchrun
from tasks.training.workers.check import check_workers
from tasks.training.workers.events import EventReader
from tasks.training.workers.join import announce, refusals
from tasks.training.workers.order import MODEL, OUTCOME, POLL_SECONDS, STOP, VERSIONS, WORK, WorkerOrder, machine, versions
from tasks.training.workers.rendezvous import require_own

LAUNCHERS = {"torchrun": torchrun, "ray": on_ray}
GRACE_SECONDS = 30.0  # after the outcome of one worker, in which the others end


def train_by_workers(work: Work, inputs: StageInputs, fingerprint: str, checkpoints: Path) -> tuple[Write, int | None]:
    """Train a model in `compute.workers` processes, from where its checkpoints in a folder stand.

    Returns:
        The function that writes its folder, and the step at which the training went on; None: it began here.

    Raises:
        UserError: There are more workers than GPUs or examples of a step, or the model does not fit its settings.
        RunCancelled: The run was asked to stop; a checkpoint was written.
        TrainingDiverged: Its loss left all bounds.
        LadderError: Workers died more often than `compute.max_failures`.
    """
    compute = inputs.ladder.compute
    check_workers(compute, work.training, work.objective, work.name)
    if compute.rendezvous is not None:
        require_own(compute.rendezvous)
    folder = checkpoints / TOGETHER
    end_earlier(folder)
    with (
        stopping.training(work.name),
        TrainingProgress(work.name, work.training.steps, unit_of(inputs)) as progress,
        stage_curves(work, inputs.context) as curves,
    ):
        events = EventReader(folder, progress, curves)
        events.record_rest()
        _write_order(folder, WorkerOrder(work, inputs, fingerprint, checkpoints, os.getpid(), machine()))
        if compute.nodes > 1:
            announce(folder, work.name, compute)
        several, each = "s" if compute.workers > 1 else "", f" on each of up to {compute.nodes} machines" if compute.nodes > 1 else ""
        log.info("%s: %d worker%s%s started by %s", work.name, compute.workers, several, each, compute.launcher)
        _run(folder, compute, events)
        outcome = read_json(folder / OUTCOME)
        if outcome["kind"] == RunCancelled.__name__:
            raise RunCancelled(outcome["text"])
    if outcome["kind"]:
        raise getattr(errors, outcome["kind"])(outcome["text"])

    def write(target: Path) -> None:
        for path in (folder / MODEL).iterdir():
            shutil.move(path, target / path.name)

    return write, outcome["resumed_at"]


def unit_of(inputs: StageInputs) -> str:
    """The unit of a training's speed."""
    return "tok" if inputs.ladder.workload == "causal-lm" else "ex"


def _write_order(folder: Path, order: WorkerOrder) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / VERSIONS).write_text(json.dumps(versions()), encoding="utf-8")  # apart: another version may not even read the order
    (folder / WORK).write_bytes(cloudpickle.dumps(order))


def _environment(compute: Compute) -> dict[str, str]:
    """That of this process; workers share its cores."""
    ours = {"OMP_NUM_THREADS": str(threads_each(compute, compute.workers)), "PYTHONUNBUFFERED": "1"}
    return os.environ | ours | LAUNCHERS[compute.launcher].environment(compute)


def _run(folder: Path, compute: Compute, events: EventReader) -> None:
    """Start the launcher and wait for its end, showing what the workers say.

    Raises:
        LadderError: It failed.
    """
    said = folder / "launcher.log"
    with said.open("wb") as output:
        # A session of its own: Ctrl-C reaches this process alone, which asks the workers to end after their step.
        process = subprocess.Popen(
            LAUNCHERS[compute.launcher].command(folder, compute),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(compute),
            start_new_session=True,
        )
    try:
        ended = 0.0
        while process.poll() is None:
            events.read()
            for refusal in refusals(folder):
                log.warning("%s", refusal)
            if not ended and (folder / OUTCOME).is_file():
                ended = time.monotonic()
            if ended and time.monotonic() - ended > GRACE_SECONDS:  # one worker has failed, the others wait for it
                end_earlier(folder)
            if stopping.requested():
                (folder / STOP).touch()
            time.sleep(POLL_SECONDS)
        events.read()
    except BaseException:
        end_earlier(folder)
        process.wait()
        raise
    if not (folder / OUTCOME).is_file():
        end_earlier(folder)  # the workers of a launcher that was killed
        raise LadderError(f"Workers died more often than compute.max_failures allows ({compute.max_failures}). {_last_words(said)}")


def end_earlier(folder: Path) -> None:
    """Kill launcher and workers of an attempt, whose run or launcher may have died, and wait until they are gone.

    They write the same checkpoints as those that come after them.
    """
    family: list[psutil.Process] = []
    for each in psutil.process_iter(["cmdline"]) if folder.is_dir() else ():
        if str(folder) in (each.info["cmdline"] or ()) and each.pid != os.getpid():
            family += [each, *_below(each)]
    for each in family:
        try:
            each.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _last_words(path: Path) -> str:
    """The end of the launcher's output, for the message."""
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    wanted: list[Any] = [line for line in lines if "Error" in line or "Signal" in line][-2:] or lines[-2:]
    return f"Its last lines: {' | '.join(wanted)} (all of them: {path})" if wanted else f"It said nothing ({path})."
