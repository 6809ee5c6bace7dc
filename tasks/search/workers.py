"""Worker processes in which trials train at the same time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from conf.errors import LadderError
from tasks.search.trial import TrialJob, TrialOutcome, train_trial

PROGRAM = "tasks.search.trial"  # answers jobs
END_SECONDS = 10.0


class Workers(AbstractContextManager["Workers"]):
    """Trains jobs: one in this process, several in a process each, which live as long as the search."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.processes: list[subprocess.Popen[str]] = []

    def train(self, jobs: Sequence[TrialJob]) -> list[TrialOutcome]:
        """The outcomes of at most `count` jobs, in their order.

        Raises:
            LadderError: A worker failed or died; what it has finished is in the store.
        """
        if len(jobs) == 1:
            return [train_trial(jobs[0])]
        while len(self.processes) < len(jobs):
            command = [sys.executable, "-m", PROGRAM]
            self.processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for process, job in zip(self.processes, jobs, strict=False):
            assert process.stdin
            process.stdin.write(job.model_dump_json() + "\n")
            process.stdin.flush()
        return [_answer(process) for process, _ in zip(self.processes, jobs, strict=False)]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout):
                if stream:
                    stream.close()


def _answer(process: subprocess.Popen[str]) -> TrialOutcome:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise LadderError(f"a worker of the search ended with code {process.wait()}; the same command continues with its trial")
    outcome = TrialOutcome.model_validate_json(line)
    if outcome.failed:
        raise LadderError(outcome.failed)
    return outcome
