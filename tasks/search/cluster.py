"""Trials and arms on the workers of a Dask cluster.

A job of a worker that dies is given to another, which goes on from the last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType

from conf.errors import LadderError
from tasks.runtime.cluster.client import Cluster, cluster_address
from tasks.runtime.cluster.localise import model_here
from tasks.runtime.logs import log
from tasks.search.trial import TrialJob, TrialOutcome, train_trial
from tasks.search.workers import PROGRAM, Workers


class ClusterWorkers(Workers):
    """Trains jobs on all workers of a cluster, in as many places as they have threads; arguments and errors as `Cluster`."""

    def __init__(self, address: str, most: int | None) -> None:
        self._cluster = Cluster(address, most)
        super().__init__(self._cluster.count)

    def train(self, jobs: Sequence[TrialJob]) -> list[TrialOutcome]:
        """The outcomes of any number of jobs, in their order.

        Raises:
            LadderError: A training failed, or several workers died with it, or the scheduler is gone; finished students are in the store.
        """
        found = dict[int, TrialOutcome]()
        for number, answer in self._cluster.answers(PROGRAM, [_line(job) for job in jobs]):
            found[number] = _outcome(answer, jobs[number])
        return [found[number] for number in range(len(jobs))]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._cluster.__exit__(kind, error, trace)
        super().__exit__(kind, error, trace)


def _line(job: TrialJob) -> str:
    """A job for another machine: the limit of trainings at a time is the cluster's, and not that of its machines."""
    compute = {**job.ladder["compute"], "at_once": None}
    return job.model_copy(update={"ladder": {**job.ladder, "compute": compute}}).model_dump_json()


def _outcome(answer: str, job: TrialJob) -> TrialOutcome:
    outcome = TrialOutcome.model_validate_json(answer)
    if outcome.failed:
        raise LadderError(outcome.failed)
    if outcome.refused and outcome.local:
        log.info("cluster: a worker refused a job, which is tried here: %s", outcome.refused)
        return train_trial(job)
    return outcome.model_copy(update={"students": tuple(model_here(student, job.context) for student in outcome.students)})


def workers_of(at_once: int | None) -> Workers:
    """Workers for the jobs of a search or a proof: those of the cluster in `LADDER_CLUSTER`, else of this machine.

    Args:
        at_once: Most jobs at the same time, on all machines together; None: as many as there are places.
    """
    address = cluster_address()
    return ClusterWorkers(address, at_once) if address else Workers(at_once or os.cpu_count() or 1)


def require_cluster(at_once: int | None) -> None:
    """Refuse to begin where `LADDER_CLUSTER` names a cluster that cannot be used; errors as `ClusterWorkers`."""
    if cluster_address():
        with workers_of(at_once):
            pass
