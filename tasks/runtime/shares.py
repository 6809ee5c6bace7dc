"""Work shared among processes, one for each worker of `compute.workers`.

A process takes a run of neighbouring parts, whole ones, so that each part is computed as one process would compute it. Order and answer
travel by cloudpickle in a private folder of the home, between processes of one installation. The folder lies where half-written results
do, with a lock by which `ladder clean` knows one whose run was killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle
from filelock import FileLock

from conf.errors import LadderError
from conf.home import Home
from conf.schema.compute import Compute
from models.base.device import threads_each, use_threads
from tasks.runtime import cancellation
from tasks.runtime.stage_inputs import StageInputs

ORDER, POLL_SECONDS, LETTERS = "order.pickle", 0.1, 2000
T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """Number of this process among several."""

    number: int = 0
    count: int = 1

    def first(self, parts: int) -> int:
        """Number of its first part, of so many; that of the next process's is where it ends."""
        return self.number * parts // self.count

    def of(self, parts: Iterable[T], count: int) -> Iterator[T]:
        """Its parts, of `count` in all."""
        return islice(iter(parts), self.first(count), Share(self.number + 1, self.count).first(count))


def shares_of(compute: Compute, parts: int) -> int:
    """Processes that share work of so many parts: all on the machine of the run, also where Ray's workers are elsewhere."""
    if compute.launcher == "local":
        return 1
    most = min(compute.workers, parts)
    return min(most, len(os.sched_getaffinity(0))) if compute.launcher == "ray" else most


def in_shares(
    function: Callable[..., T], inputs: StageInputs, count: int, *args: Any, work: str, on_poll: Callable[[], object] = lambda: None
) -> list[T]:
    """The results of `function(inputs, *args, share)` for all `count` shares, each from a process of its own.

    Args:
        function: Of a module; it gets `inputs` with its share of the threads, and no workers of its own.
        inputs: Of all stages.
        count: Processes.
        args: More arguments.
        work: What they do, for messages: `evaluation`.
        on_poll: Called ten times a second while they work, and once when they have ended.

    Raises:
        LadderError: Of the function, or a process died.
        RunCancelled: The run was asked to stop.
    """
    compute = inputs.ladder.compute
    threads = threads_each(compute, count)
    alone = compute.model_copy(update={"launcher": "local", "workers": 1, "nodes": 1, "rendezvous": None, "threads": threads})
    order = (function, replace(inputs, ladder=inputs.ladder.model_copy(update={"compute": alone})), args, count)
    with _private_folder(inputs.context.paths) as folder:
        (folder / ORDER).write_bytes(cloudpickle.dumps(order))
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for number in range(count):
                processes.append(_start(folder, number, threads))
            while any(process.poll() is None for process in processes) and not any(process.poll() for process in processes):
                if cancellation.requested():
                    raise cancellation.stopped()
                on_poll()
                time.sleep(POLL_SECONDS)
            died = next((number for number, process in enumerate(processes) if process.poll()), None)
            if died is not None and cancellation.requested():  # Ctrl-C came to the process first
                raise cancellation.stopped()
        finally:
            for process in processes:
                process.kill()
                process.wait()
        on_poll()
        return [_answer(folder, number, work) for number in (range(count) if died is None else [died])]


@contextmanager
def _private_folder(home: Home) -> Iterator[Path]:
    """An empty folder until the end of the block; its lock is held as long, and shows `ladder clean` that it is in use."""
    name = uuid.uuid4().hex
    folder = home.store / "writing" / f"{name}-{os.getpid()}"
    home.locks.mkdir(parents=True, exist_ok=True)
    with FileLock(home.locks / f"{name}.lock") as lock:
        folder.mkdir(parents=True, mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(lock.lock_file).unlink()


def _start(folder: Path, number: int, threads: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tasks.runtime.shares", str(folder), str(number), str(os.getpid())]
    env = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with (folder / f"{number}.log").open("wb") as said:
        return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stderr=said)


def _answer(folder: Path, number: int, work: str) -> Any:
    path = folder / f"{number}.pickle"
    if not path.is_file():
        said = (folder / f"{number}.log").read_text(encoding="utf-8", errors="replace")[-LETTERS:].strip()
        raise LadderError(f"process {number} of the {work} died: {said.splitlines()[-1] if said else 'it said nothing'}")
    answer = cloudpickle.loads(path.read_bytes())
    if isinstance(answer, LadderError):
        raise answer
    return answer


def _watch(owner: int) -> None:
    """End with the run, whatever ended it."""
    while os.getppid() == owner:
        time.sleep(1.0)
    os._exit(1)


def main(folder: Path, number: int, owner: int) -> None:
    """Compute one share, and leave its result, or the error that a user can mend, in the folder."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the run, which ends this process
    threading.Thread(target=_watch, args=(owner,), daemon=True).start()
    function, inputs, args, count = cloudpickle.loads((folder / ORDER).read_bytes())
    import torch

    use_threads(inputs.ladder)
    if torch.cuda.is_available() and inputs.ladder.compute.device != "cpu":
        torch.cuda.set_device(number % torch.cuda.device_count())
    try:
        answer = function(inputs, *args, Share(number, count))
    except LadderError as error:
        answer = error
    path = folder / f"{number}.pickle"
    path.with_suffix(".writing").write_bytes(cloudpickle.dumps(answer))
    path.with_suffix(".writing").rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
