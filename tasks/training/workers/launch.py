"""Train a model in several processes, started by torch.distributed.run.

The run itself trains nothing then: it writes the work into a folder, starts the launcher, shows the steps of the first worker, passes a
request to stop on, and takes the finished model's folder. Work and inputs travel by cloudpickle, between processes of one installation.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle

from conf import errors
from conf.errors import LadderError, RunCancelled
from conf.schema.compute import Compute
from models.base.files import read_json
from tasks.runtime import cancellation as stopping
from tasks.runtime.logs import log
from tasks.runtime.progress import TrainingProgress
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.cached import Write
from tasks.training.work import TOGETHER, Work
from tasks.training.workers.check import check_workers
from tasks.training.workers.events import EVENTS, EventReader

WORK, VERSIONS, STOP, OUTCOME, MODEL = "work.pickle", "versions.json", "stop", "outcome.json", "model"
POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0  # after the outcome of one worker, in which the others end
WORKER = "tasks.training.workers.worker"


class WorkerOrder(NamedTuple):
    """All that a worker needs; `owner` is the process id of the run that wrote it."""

    work: Work
    inputs: StageInputs
    fingerprint: str
    checkpoints: Path
    owner: int


def versions() -> dict[str, str]:
    """What must be equal in all processes of a training."""
    packages = {name: importlib.metadata.version(name) for name in ("ladder-distillation", "torch")}
    return packages | {"Python": platform.python_version()}


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
    folder = checkpoints / TOGETHER
    end_earlier(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    order = WorkerOrder(work, inputs, fingerprint, checkpoints, os.getpid())
    (folder / VERSIONS).write_text(json.dumps(versions()), encoding="utf-8")  # apart: another version may not even read the order
    (folder / WORK).write_bytes(cloudpickle.dumps(order))
    log.info("%s: %d worker%s started by %s", work.name, compute.workers, "s" if compute.workers > 1 else "", compute.launcher)
    with stopping.training(work.name), TrainingProgress(work.name, work.training.steps, unit_of(inputs)) as progress:
        _run(folder, compute, EventReader(folder, progress))
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


def _command(folder: Path, compute: Compute) -> list[str]:
    options = ["--standalone", f"--nproc-per-node={compute.workers}", f"--max-restarts={compute.max_failures}"]
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", WORKER, str(folder)]


def _environment(compute: Compute) -> dict[str, str]:
    """That of this process; workers share its cores, and a worker's neighbours are on this machine."""
    cores = compute.threads or len(os.sched_getaffinity(0))
    return os.environ | {
        "OMP_NUM_THREADS": str(max(cores // compute.workers, 1)),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
        "PYTHONUNBUFFERED": "1",
    }


def _run(folder: Path, compute: Compute, events: EventReader) -> None:
    """Start the launcher and wait for its end, showing what the workers say.

    Raises:
        LadderError: It failed.
    """
    said = folder / "launcher.log"
    with said.open("wb") as output:
        # A session of its own: Ctrl-C reaches this process alone, which asks the workers to end after their step.
        process = subprocess.Popen(
            _command(folder, compute),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(compute),
            start_new_session=True,
        )
    (folder / "pid").write_text(str(process.pid), encoding="utf-8")
    try:
        ended = 0.0
        while process.poll() is None:
            events.read()
            if not ended and (folder / OUTCOME).is_file():
                ended = time.monotonic()
            if ended and time.monotonic() - ended > GRACE_SECONDS:  # one worker has failed, the others wait for it
                _kill(process.pid)
            if stopping.requested():
                (folder / STOP).touch()
            time.sleep(POLL_SECONDS)
        events.read()
    except BaseException:
        _kill(process.pid)
        raise
    if not (folder / OUTCOME).is_file():
        raise LadderError(f"Workers died more often than compute.max_failures allows ({compute.max_failures}). {_last_words(said)}")


def end_earlier(folder: Path) -> None:
    """End the workers of an earlier attempt, whose run died: they write the same checkpoints."""
    import psutil

    path = folder / "pid"
    pid = int(path.read_text(encoding="utf-8")) if path.is_file() else 0
    if pid and psutil.pid_exists(pid) and str(folder) in " ".join(psutil.Process(pid).cmdline()):
        _kill(pid)


def _kill(session: int) -> None:
    """Kill the launcher and its workers, and wait until they are gone."""
    import psutil

    try:
        family = [psutil.Process(session), *psutil.Process(session).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in family:
        try:
            each.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)


def _last_words(path: Path) -> str:
    """The end of the launcher's output, for the message."""
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    wanted: list[Any] = [line for line in lines if "Error" in line or "Signal" in line][-2:] or lines[-2:]
    return f"Its last lines: {' | '.join(wanted)} (all of them: {path})" if wanted else f"It said nothing ({path})."


__all__ = ["EVENTS", "MODEL", "OUTCOME", "STOP", "VERSIONS", "WORK", "WorkerOrder", "end_earlier", "train_by_workers", "versions"]
