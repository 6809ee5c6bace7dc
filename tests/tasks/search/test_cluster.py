"""Jobs on a Dask cluster: the students of one process, whoever dies or stops on the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster
from distributed.client import FuturesCancelledError

from conf.errors import LadderError, UserError
from conf.home import Home
from conf.locks import is_held, job_began
from conf.schema.ladder import Ladder
from tasks.records.run import StageRecord
from tasks.runtime.cluster.client import VARIABLE
from tasks.runtime.cluster.localise import model_here
from tasks.runtime.cluster.program import in_use
from tasks.runtime.stage_inputs import StageInputs
from tasks.search.cluster import ClusterWorkers, workers_of
from tasks.search.trial import TrialJob, here, job_of, train_trial
from tasks.search.workers import Workers
from tasks.store.remote.cache import _starts
from tasks.teachers.teacher import prepare_teacher
from tests.factories import inputs_of, write_functions
from tests.flows.driver import clean_environment

OWNER = "TRAININGS_OF_TEST"  # variable of a test's workers, and of their processes
SHAPE = {"hidden_size": 16, "layers": 2, "heads": 2, "feed_forward": 32}


def ladder_of(steps: int, seed: int = 0) -> Ladder:
    training = {"steps": steps, "batch_size": 4, "precision": "fp32", "checkpoint_every": 5, "validate_every": 100}
    return Ladder.model_validate(
        {
            "name": "tiny",
            "seed": seed,
            "data": {"source": "files", "paths": ["texts/*.txt"], "sequence_length": 8, "valid_fraction": 0.2, "test_fraction": 0.2},
            "teacher": {"source": "train", "shape": SHAPE, "training": training | {"steps": 4}, "allow_poor": True},
            "compute": {"at_once": 1, "device": "cpu", "threads": 1},
            "evaluation": {"examples": 8},
            "tracking": "off",
            "stages": [{"name": "small", "student": {"shape": SHAPE | {"layers": 1}}, "training": training}],
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_functions(tmp_path)
    return tmp_path


@pytest.fixture
def inputs(folder: Path) -> StageInputs:
    return inputs_of(ladder_of(4), folder)


@pytest.fixture
def root(inputs: StageInputs) -> StageRecord:
    return prepare_teacher(inputs)


def job(inputs: StageInputs, root: StageRecord, steps: int, seed: int = 0, home: Path | None = None) -> TrialJob:
    made = job_of(ladder_of(steps, seed), ["small"], [root], inputs)
    return made if home is None else made.model_copy(update={"context": made.context.model_copy(update={"home": str(home)})})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.setenv(OWNER, str(tmp_path))
    here_alone: Any = LocalCluster
    made = here_alone(n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None)
    yield made
    made.close()


def trainings() -> list[psutil.Process]:
    """The processes on this machine that train a job of this test now."""
    found = []
    for each in psutil.process_iter(["cmdline"]):
        if (each.info["cmdline"] or [])[-2:] == ["-m", "tasks.search.trial"]:
            with suppress(psutil.NoSuchProcess):
                found += [each] if each.environ().get(OWNER) == os.environ[OWNER] else []
    return found


def test_an_address_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.runtime.cluster.client.CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for address in (f"tcp://127.0.0.1:{port}", "nonsense://x"):
        monkeypatch.setenv(VARIABLE, address)
        with pytest.raises(
            UserError, match=rf"^LADDER_CLUSTER: got '{address}'; allowed: the address of a Dask scheduler that answers. Start"
        ):
            workers_of(1)
    monkeypatch.delenv(VARIABLE)
    assert type(workers_of(3)) is Workers


@pytest.mark.slow
def test_students_of_a_cluster_are_those_of_one_process(inputs: StageInputs, root: StageRecord, cluster: Any, tmp_path: Path) -> None:
    alone = [train_trial(job(inputs, root, 6, seed, tmp_path / "alone")) for seed in range(3)]
    wrong = job(inputs, root, 6).model_copy(update={"ladder": ladder_of(6).model_dump(mode="json") | {"seed": -1}})
    with ClusterWorkers(cluster.scheduler_address, None) as workers:
        assert workers.count == 2
        together = workers.train([job(inputs, root, 6, seed) for seed in range(3)])
        assert workers.train([job(inputs, root, 6)])[0].students[0].reused, "its result is in the store of all"
        with pytest.raises(Exception, match="ended with code"):
            workers.train([wrong])
    assert [each.students[0].fingerprint for each in together] == [each.students[0].fingerprint for each in alone]
    assert [each.students[0].weights_sha256 for each in together] == [each.students[0].weights_sha256 for each in alone]
    assert [each.students[0].metrics for each in together] == [each.students[0].metrics for each in alone]


def test_a_machine_without_the_runs_disk_finds_all_in_the_object_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (tmp_path / "bucket").mkdir()
    monkeypatch.setenv("LADDER_STORE", f"file://{tmp_path}/bucket")
    inputs = inputs_of(ladder_of(2), folder)
    root = prepare_teacher(inputs)
    made = job(inputs, root, 2)
    Path(inputs.context.home).rename(tmp_path / "unseen")
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "own"))
    own = here(made)
    assert own.context.home == str(tmp_path / "own")
    assert all(str(tmp_path / "own") in record.folder for record in (own.data, *own.lineage))
    outcome = train_trial(own)
    (tmp_path / "unseen").rename(inputs.context.home)
    student = outcome.students[0]
    (tmp_path / "own").rename(tmp_path / "gone")
    assert model_here(student, inputs.context).folder.startswith(inputs.context.home)
    monkeypatch.delenv("LADDER_STORE")
    Path(inputs.context.home).rename(tmp_path / "unseen")
    with pytest.raises(LadderError, match=r"^LADDER_CLUSTER: .* does not see .*Give all machines the same LADDER_STORE, or a disk"):
        here(made)


def test_what_a_job_uses_is_kept_from_its_beginning_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Home(tmp_path)
    with in_use(own):
        (path,) = own.locks.glob("run-job-*.lock")
        assert is_held(path)
        began = job_began(path)
        assert began is not None
        assert time.time() - 60 < began <= time.time()
        monkeypatch.setattr(time, "time", lambda: began + 7200.0)
        assert _starts(own) == [began], "and not the last hour alone"
    assert not list(own.locks.iterdir())
    assert job_began(Path("run-digits-1.lock")) is None


@pytest.mark.slow
def test_a_worker_that_dies_leaves_its_job_to_another(inputs: StageInputs, root: StageRecord, cluster: Any) -> None:
    with ClusterWorkers(cluster.scheduler_address, 1) as workers:

        def kill() -> None:
            until = time.monotonic() + 120
            while not list(Path(inputs.context.home).rglob("step-*")):
                assert time.monotonic() < until
                time.sleep(0.02)
            (training,) = trainings()
            psutil.Process(training.ppid()).send_signal(signal.SIGKILL)  # the worker; its training ends with it

        thread = threading.Thread(target=kill)
        thread.start()
        (outcome,) = workers.train([job(inputs, root, 800)])
        thread.join()
    assert outcome.students[0].resumed_at is not None
    assert not trainings()


@pytest.mark.slow
def test_a_search_that_is_stopped_ends_its_trainings_with_a_checkpoint(inputs: StageInputs, root: StageRecord, cluster: Any) -> None:
    class Stopped(BaseException):
        pass

    def search() -> None:
        with ClusterWorkers(cluster.scheduler_address, None) as workers:

            def train() -> None:
                with suppress(FuturesCancelledError, LadderError):  # in the flow itself the same thread is stopped
                    workers.train([job(inputs, root, 100_000)])

            threading.Thread(target=train, daemon=True).start()
            until = time.monotonic() + 120
            while not list(Path(inputs.context.home).rglob("step-*")):
                assert time.monotonic() < until
                time.sleep(0.02)
            raise Stopped

    with pytest.raises(Stopped):
        search()
    until = time.monotonic() + 60
    while trainings():
        assert time.monotonic() < until, "the training goes on"
        time.sleep(0.1)
    assert list(Path(inputs.context.home).rglob("step-*"))


@pytest.mark.slow
def test_a_scheduler_that_goes_away_is_one_sentence(inputs: StageInputs, root: StageRecord, cluster: Any) -> None:
    def go_away() -> None:
        until = time.monotonic() + 120
        while not list(Path(inputs.context.home).rglob("step-*")):
            assert time.monotonic() < until
            time.sleep(0.02)
        cluster.close()

    thread = threading.Thread(target=go_away)
    thread.start()
    with (
        pytest.raises(LadderError, match=r"^LADDER_CLUSTER: the scheduler at tcp://127.0.0.1:\d+ is gone; start it"),
        ClusterWorkers(cluster.scheduler_address, None) as workers,
    ):
        workers.train([job(inputs, root, 100_000)])
    thread.join()


@contextmanager
def one_more_worker(address: str, **env: str) -> Iterator[None]:
    """A worker of a cluster whose machine has other variables."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1"]
    with subprocess.Popen(command, env=clean_environment(**env), start_new_session=True) as worker:
        try:
            yield
        finally:
            worker.terminate()


@pytest.mark.slow
def test_a_worker_that_refuses_ends_the_search_with_its_sentence(inputs: StageInputs, root: StageRecord, cluster: Any) -> None:
    with one_more_worker(cluster.scheduler_address, LADDER_STORE="nowhere"):
        with Client(cluster.scheduler_address, set_as_default=False) as client:
            client.wait_for_workers(3, timeout=120)
        with (
            pytest.raises(LadderError, match=r"^LADDER_STORE: got 'nowhere'; allowed: .*\.$"),
            ClusterWorkers(cluster.scheduler_address, None) as workers,
        ):
            workers.train([job(inputs, root, 100_000, seed) for seed in range(3)])
    until = time.monotonic() + 60
    while trainings():
        assert time.monotonic() < until, "the trainings of the others go on"
        time.sleep(0.1)
