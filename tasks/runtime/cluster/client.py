"""Jobs on the workers of a Dask cluster, each in a process of its own.

A job travels as a line of JSON to a program, and its outcome comes back as one: a job that dies takes no worker with it. A job of a worker
that dies is given to another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from conf.errors import LadderError, UserError
from tasks.runtime.logs import log

VARIABLE = "LADDER_CLUSTER"
CONNECT_SECONDS, POLL_SECONDS = 10.0, 0.5
REMEDY = "Start `dask scheduler` there, and `dask worker ADDRESS --nthreads 1` on each machine."


def cluster_address() -> str | None:
    """The cluster in `LADDER_CLUSTER`; None: there is none."""
    return os.environ.get(VARIABLE) or None


class Cluster(AbstractContextManager["Cluster"]):
    """All workers of a cluster, with a place for a job in each of their threads.

    Args:
        address: Of a Dask scheduler, such as `tcp://host:8786`.
        most: Jobs at the same time; None: one for each place.

    Attributes:
        count: Jobs at the same time.

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
        self.count = min(places, most or places)
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

    def answers(self, program: str, lines: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Numbers and outcomes of any number of jobs, as they end.

        Args:
            program: A module that answers lines, as `tasks.runtime.cluster.program` does.
            lines: A job in each.

        Raises:
            LadderError: Several workers died with a job, or the scheduler is gone.
        """
        waiting, running = list(enumerate(lines)), dict[Any, int]()
        while waiting or running:
            while waiting and len(running) < self.count:
                number, line = waiting.pop(0)
                running[self._client.submit(answer_apart, program, line, self._stop, pure=False)] = number
            for future in self._ended(list(running)):
                with self._faults():
                    answer = future.result()
                yield running.pop(future), answer

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
            raise LadderError(f"{VARIABLE}: {error.allowed_failures + 1} workers died with the same job; see their logs") from error
        except (OSError, CancelledError, FuturesCancelledError) as error:
            raise LadderError(f"{VARIABLE}: the scheduler at {self._address} is gone; start it, and the same command goes on.") from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        from distributed import Event

        with suppress(OSError, RuntimeError):  # the scheduler may be gone
            if error is not None:
                Event(self._stop, client=self._client).set()  # trainings that run write a checkpoint and end
            self._client.close()


def answer_apart(program: str, line: str, stop: str) -> str:
    """Have a process of its own answer a job, on a worker; ends it once the event `stop` is set.

    Returns:
        The outcome as JSON, with `failed` where the process died.
    """
    from distributed import Event, get_client

    with subprocess.Popen([sys.executable, "-m", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
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
    return answer or json.dumps({"failed": f"a job on {os.uname().nodename} ended with code {process.returncode}"})
