"""Held-out batches shared among processes, one for each worker.

A process takes a run of neighbouring batches, whole ones, so that each batch is computed as one process would compute it; what comes back
is joined in their order. Order and answer travel by cloudpickle in a private folder of the home, between processes of one installation.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle

from conf.errors import LadderError
from conf.schema.compute import Compute
from conf.schema.measures.evaluation import Evaluation
from models.data.corpus import Corpus, SplitName
from models.data.held_out import evaluation_documents
from tasks.runtime import cancellation
from tasks.runtime.stage_inputs import StageInputs

ORDER, POLL_SECONDS, LETTERS = "order.pickle", 0.1, 2000
T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """Which of several processes this is."""

    number: int = 0
    count: int = 1

    def first(self, batches: int) -> int:
        """Number of its first batch, of so many; that of the next process's is where it ends."""
        return self.number * batches // self.count

    def of(self, batches: Iterable[T], count: int) -> Iterator[T]:
        """Its batches, of `count` in all."""
        return islice(iter(batches), self.first(count), Share(self.number + 1, self.count).first(count))


def batch_count(corpus: Corpus, split: SplitName, evaluation: Evaluation) -> int:
    """Batches of `evaluation_batches`."""
    return -(-len(evaluation_documents(corpus, split, evaluation.examples)) // evaluation.batch_size)


def shares_of(compute: Compute, batches: int) -> int:
    """Processes that share an evaluation of so many batches."""
    return min(compute.workers, batches) if compute.launcher != "local" else 1


def in_shares(function: Callable[..., T], inputs: StageInputs, count: int, *args: Any) -> list[T]:
    """The results of `function(inputs, *args, share)` for all `count` shares, each from a process of its own.

    Raises:
        LadderError: Of the function, or a process died.
        RunCancelled: The run was asked to stop.
    """
    cores = inputs.ladder.compute.threads or len(os.sched_getaffinity(0))
    env = os.environ | {"OMP_NUM_THREADS": str(max(cores // count, 1))}
    with tempfile.TemporaryDirectory(dir=inputs.context.home, prefix="shares-") as place:
        folder = Path(place)
        (folder / ORDER).write_bytes(cloudpickle.dumps((function, inputs, args, count)))
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for number in range(count):
                processes.append(_start(folder, number, env))
            while any(process.poll() is None for process in processes) and not any(process.poll() for process in processes):
                if cancellation.requested():
                    raise cancellation.stopped()
                time.sleep(POLL_SECONDS)
            died = next((number for number, process in enumerate(processes) if process.poll()), None)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        return [_answer(folder, number) for number in (range(count) if died is None else [died])]


def _start(folder: Path, number: int, env: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tasks.evaluation.shares", str(folder), str(number)]
    with (folder / f"{number}.log").open("wb") as said:
        return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stderr=said)


def _answer(folder: Path, number: int) -> Any:
    path = folder / f"{number}.pickle"
    if not path.is_file():
        said = (folder / f"{number}.log").read_text(encoding="utf-8", errors="replace")[-LETTERS:].strip()
        raise LadderError(f"process {number} of the evaluation died: {said.splitlines()[-1] if said else 'it said nothing'}")
    answer = cloudpickle.loads(path.read_bytes())
    if isinstance(answer, LadderError):
        raise answer
    return answer


def _watch(owner: int) -> None:
    """End with the run, whatever ended it."""
    while os.getppid() == owner:
        time.sleep(1.0)
    os._exit(1)


def main(folder: Path, number: int) -> None:
    """Compute one share, and leave its result, or the error that a user can mend, in the folder."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    function, inputs, args, count = cloudpickle.loads((folder / ORDER).read_bytes())
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
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
    main(Path(sys.argv[1]), int(sys.argv[2]))
