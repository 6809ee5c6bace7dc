"""Trials and arms on the workers of a Dask cluster.

A job travels as JSON, is trained by a process of its own on the worker that takes it, and its outcome comes back as JSON: a training that
dies takes no worker with it. A job of a worker that dies is given to another, which goes on from the last checkpoint.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from conf.errors import LadderError, UserError
from tasks.runtime.logs import log
from tasks.search.localise import model_here
from tasks.search.trial import TrialJob, TrialOutcome, train_trial
from tasks.search.workers import Workers

VARIABLE = "LADDER_CLUSTER"
CONNECT_SECONDS, POLL_SECONDS = 10.0, 0.5
REMEDY = "Start `dask scheduler` there, and `dask worker ADDRESS --nthreads 1` on each machine."


class ClusterWorkers(Workers):
    """Trains jobs on all workers of a cluster, in as many places as they have threads.

    Args:
        address: Of a Dask scheduler, such as `tcp://host:8786`.
        most: Jobs at the same time; None: one for each thread of a worker.

    Raises:
        UserError: The address does not answer, no worker is there, or one has another version of Ladder or torch.
    """

    def __init__(self, address: str, most: int | None) -> None:
        if find_spec("distributed") is None:
            raise UserError.about(VARIABLE, address, "nothing, where the package distributed is missing", "Run `pip install distributed`.")
        from distributed import Client

        try:
            self._client: Any = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError.about(VARIABLE, address, "the address of a Dask scheduler that answers", REMEDY) from error
        self._address = address
        self._stop = f"ladder-{uuid.uuid4().hex}"
        places = sum(self._client.nthreads().values())
        try:
            if not places:
                raise UserError.about(VARIABLE, address, "a scheduler with at least one worker", REMEDY)
            self._check_versions()
        except BaseException:
            self._client.close()
            raise
        super().__init__(min(places, most or places))
        few = f"; compute.at_once is {most}, null takes all" if self.count < places else ""
        log.info("cluster: %d of %d places at %s%s", self.count, places, address, few)

    def _check_versions(self) -> None:
        def versions() -> dict[str, str]:  # travels as code: a worker may have another Ladder, or none
            from importlib.metadata import PackageNotFoundError, version

            found = {}
            for name in ("ladder-distillation", "torch"):
                try:
                    found[name] = version(name)
                except PackageNotFoundError:
                    found[name] = "none"
            return found

        for worker, theirs in self._client.run(versions).items():
            if theirs != versions():
                said = " and ".join(f"{name} {number}" for name, number in versions().items())
                raise UserError.about(VARIABLE, f"a worker at {worker} with {theirs}", said, "Install the same versions on all machines.")

    def train(self, jobs: Sequence[TrialJob]) -> list[TrialOutcome]:
        """The outcomes of any number of jobs, in their order.

        Raises:
            LadderError: A training failed, or several workers died with it, or the scheduler is gone; finished students are in the store.
        """
        lines, found, running = list(enumerate(_line(job) for job in jobs)), dict[int, TrialOutcome](), dict[Any, int]()
        while lines or running:
            while lines and len(running) < self.count:
                number, line = lines.pop(0)
                running[self._client.submit(train_apart, line, self._stop, pure=False)] = number
            for future in self._ended(list(running)):
                number = running.pop(future)
                found[number] = self._outcome(future, jobs[number])
        return [found[number] for number in range(len(jobs))]

    def _ended(self, running: Sequence[Any]) -> set[Any]:
        from distributed import wait

        with self._client.as_current(), self._faults():
            ready: Any = wait(running, return_when="FIRST_COMPLETED")
        return ready.done

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """A scheduler that is gone, and workers that die, in one sentence."""
        from distributed.client import FuturesCancelledError
        from distributed.scheduler import KilledWorker

        try:
            yield
        except KilledWorker as error:
            raise LadderError(f"{VARIABLE}: {error.allowed_failures + 1} workers died with the same training; see their logs") from error
        except (OSError, CancelledError, FuturesCancelledError) as error:
            raise LadderError(f"{VARIABLE}: the scheduler at {self._address} is gone; start it, and the same command goes on.") from error

    def _outcome(self, future: Any, job: TrialJob) -> TrialOutcome:
        with self._faults():
            outcome = TrialOutcome.model_validate_json(future.result())
        if outcome.failed:
            raise LadderError(outcome.failed)
        if outcome.refused and outcome.local:
            log.info("cluster: a worker refused a job, which is tried here: %s", outcome.refused)
            return train_trial(job)
        return outcome.model_copy(update={"students": tuple(model_here(student, job.context) for student in outcome.students)})

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        from distributed import Event

        with suppress(OSError, RuntimeError):  # the scheduler may be gone
            if error is not None:
                Event(self._stop, client=self._client).set()  # trainings that run write a checkpoint and end
            self._client.close()
        super().__exit__(kind, error, trace)


def _line(job: TrialJob) -> str:
    """A job for another machine: the limit of trainings at a time is the cluster's, and not that of its machines."""
    compute = {**job.ladder["compute"], "at_once": None}
    return job.model_copy(update={"ladder": {**job.ladder, "compute": compute}}).model_dump_json()


def train_apart(line: str, stop: str) -> str:
    """Train a job in a process of its own, on a worker; ends it once the event `stop` is set.

    Returns:
        The outcome as JSON.
    """
    from distributed import Event, get_client

    command = [sys.executable, "-m", "tasks.search.trial"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        ended, event = threading.Event(), Event(stop, client=get_client())

        def watch() -> None:
            while not ended.wait(POLL_SECONDS):
                if event.is_set():
                    process.terminate()
                    return

        threading.Thread(target=watch, daemon=True).start()
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        finally:
            ended.set()
            process.stdin.close()
    if not answer:
        return TrialOutcome(failed=f"a training on {os.uname().nodename} ended with code {process.returncode}").model_dump_json()
    return answer


def workers_of(at_once: int | None) -> Workers:
    """Workers for the jobs of a search or a proof: those of the cluster in `LADDER_CLUSTER`, else of this machine.

    Args:
        at_once: Most jobs at the same time, on all machines together; None: as many as there are places.
    """
    address = os.environ.get(VARIABLE)
    return ClusterWorkers(address, at_once) if address else Workers(at_once or os.cpu_count() or 1)


def require_cluster(at_once: int | None) -> None:
    """Refuse to begin where `LADDER_CLUSTER` names a cluster that cannot be used; errors as `ClusterWorkers`."""
    if os.environ.get(VARIABLE):
        with workers_of(at_once):
            pass
