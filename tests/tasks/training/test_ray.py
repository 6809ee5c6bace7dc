"""A training shared by workers that Ray Train starts, on a host of its own with loopback alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from conf.errors import UserError
from conf.schema.compute import Compute
from conf.schema.stage.training import Training
from models.base.files import read_json
from tasks.runtime.shares import shares_of
from tasks.teachers.teacher import prepare_teacher
from tasks.training.workers.check import check_workers
from tasks.training.workers.on_ray import ADDRESS
from tasks.training.workers.order import OUTCOME, VERSIONS, versions
from tests.factories import write_functions
from tests.flows.driver import clean_environment, newest_checkpoint
from tests.hosts import Hosts, hosts
from tests.tasks.training.launched import NEVER, SECONDS, Outcome, outcome, training
from tests.tasks.training.test_workers import apart, checkpoints_in, inputs_in, ladder_of, losses, wait_until

DRIVE = (
    "from tasks.training.workers import on_ray; from pathlib import Path; on_ray.ANSWER_SECONDS = 3; on_ray.main(Path('.'), 1, 0, 'cpu')"
)
with_ray = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.timeout(2 * SECONDS),
    pytest.mark.skipif(
        find_spec("ray") is None, reason="needs Ray, 240 MB that only its users install (pip install '.[ray]'); `make test-all` does"
    ),
]


class Host:
    """A host with loopback alone, and trainings on it."""

    def __init__(self, made: Hosts, folder: Path) -> None:
        self.made, self.folder = made, folder

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        env = clean_environment(**variables)
        whole = self.made.command("server", sys.executable, *command)
        return subprocess.Popen(whole, env=env, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def training(self, home: str, workers: int, steps: int = 6, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return self.start(*training(self.folder, home, workers, steps, {"launcher": "ray"}), **(variables or {}))

    def train(self, home: str, workers: int, steps: int = 6, variables: Mapping[str, str] | None = None) -> Outcome:
        return outcome(self.training(home, workers, steps, variables))

    @contextmanager
    def cluster(self, processors: int, **variables: str) -> Iterator[str]:
        """A cluster's address, until the end of the block."""
        with socket.create_server(("127.0.0.1", 0)) as free:  # of another network; a number as good as any
            address = f"127.0.0.1:{free.getsockname()[1]}"
        place = tempfile.mkdtemp(prefix="ladder-tests-ray-", dir="/tmp")  # short: for names of sockets
        options = ["--include-dashboard=false", f"--num-cpus={processors}", "--object-store-memory=100000000", "--disable-usage-stats"]
        where = ["--node-ip-address=127.0.0.1", f"--port={address.rpartition(':')[2]}", f"--temp-dir={place}"]
        process = self.start("-m", "ray.scripts.scripts", "start", "--head", "--block", *options, *where, **variables)
        try:
            check = f"import socket; socket.create_connection(('127.0.0.1', {address.rpartition(':')[2]}))"
            there = self.made.command("server", sys.executable, "-c", check)
            wait_until(lambda: subprocess.run(there, check=False, capture_output=True).returncode == 0, "the cluster", SECONDS)
            yield address
        finally:
            family = [process, *psutil.Process(process.pid).children(recursive=True)]
            for each in family:
                each.kill()
            process.communicate()
            shutil.rmtree(place, ignore_errors=True)


def family_of(process: subprocess.Popen[str], word: str) -> list[psutil.Process]:
    found = []
    for each in psutil.Process(process.pid).children(recursive=True):
        try:
            if word in " ".join(each.cmdline()):
                found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    write_functions(tmp_path)
    with hosts() as made:
        yield Host(made, tmp_path)


class TestWithRay:
    pytestmark = with_ray

    def test_one_and_two_workers_train_as_one_process_does(self, host: Host) -> None:
        here = prepare_teacher(inputs_in(host.folder, ladder_of(0, 6, NEVER), "here"))
        for workers in (1, 2):
            made = host.train(f"ray{workers}", workers).record
            assert made.fingerprint == here.fingerprint
            assert losses(made) == pytest.approx(losses(here), abs=1e-5), workers
            assert apart(here, made) < 1e-5, workers
        assert not [path for path in Path("/tmp").glob("ladder-ray-*") if path.stat().st_mtime > host.folder.stat().st_ctime]

    def test_a_killed_worker_brings_all_back_from_the_last_checkpoint(self, host: Host) -> None:
        here = prepare_teacher(inputs_in(host.folder, ladder_of(0, 600, NEVER), "here"))
        run = host.training("two", 2, 600)
        wait_until(lambda: checkpoints_in(host.folder / "two") or run.poll() is not None, "a checkpoint", SECONDS)
        family_of(run, "RayTrainWorker")[-1].kill()
        made = outcome(run).record
        assert made.resumed_at is not None
        assert made.resumed_at >= 2
        assert apart(here, made) < 1e-4
        assert losses(made) == pytest.approx(losses(here), abs=1e-3)

    def test_a_stop_writes_a_checkpoint_and_a_killed_driver_loses_no_more_than_the_steps_since(self, host: Host) -> None:
        first = host.training("two", 2, 100_000)
        wait_until(lambda: checkpoints_in(host.folder / "two") or first.poll() is not None, "a checkpoint", SECONDS)
        first.send_signal(signal.SIGTERM)
        kind, text, _ = outcome(first)
        assert (kind, text.rpartition(" of ")[2]) == ("RunInterrupted", "100000"), text
        stopped = newest_checkpoint(host.folder / "two")
        assert f"at step {stopped} " in text

        second = host.training("two", 2, 100_000)
        wait_until(lambda: newest_checkpoint(host.folder / "two") > stopped or second.poll() is not None, "a later checkpoint", SECONDS)
        below = psutil.Process(second.pid).children(recursive=True)
        family_of(second, "tasks.training.workers.on_ray")[0].kill()
        kind, text, _ = outcome(second)
        assert kind == "LadderError", text
        assert text.startswith("Workers died more often than compute.max_failures allows (1).")
        psutil.wait_procs(below, timeout=60)
        assert not [each for each in below if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]

        reached = newest_checkpoint(host.folder / "two")
        third = host.training("two", 2, 100_000)
        wait_until(lambda: newest_checkpoint(host.folder / "two") > reached or third.poll() is not None, "a checkpoint after that", SECONDS)
        third.send_signal(signal.SIGTERM)
        kind, text, _ = outcome(third)
        assert kind == "RunInterrupted", text
        assert newest_checkpoint(host.folder / "two") > reached > stopped

    def test_a_cluster_by_its_address(self, host: Host) -> None:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789" * 4, "GLOO_SOCKET_IFNAME": "lo"}
        with host.cluster(2, **token) as address:
            given = token | {"RAY_ADDRESS": address}
            kind, text, _ = host.train("three", 3, variables=given)
            assert (kind, text) == (
                "UserError",
                f"compute.workers: got 3; allowed: at most 2, the processors of the cluster at {address}. Lower it.",
            )
            here = prepare_teacher(inputs_in(host.folder, ladder_of(0, 6, NEVER), "here"))
            made = host.train("two", 2, variables=given).record
            assert losses(made) == pytest.approx(losses(here), abs=1e-5)

    def test_a_cluster_with_another_version_says_so_before_it_trains(self, host: Host) -> None:
        other = host.folder / "other" / "ladder_distillation-0.0.1.dist-info"
        other.mkdir(parents=True)
        (other / "METADATA").write_text("Metadata-Version: 2.1\nName: ladder-distillation\nVersion: 0.0.1\n")
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789" * 4}
        path = clean_environment()["PYTHONPATH"]
        with host.cluster(1, **token, PYTHONPATH=f"{other.parent}:{path}") as address:
            kind, text, _ = host.train("one", 1, variables=token | {ADDRESS: address})
        assert kind == "UserError", text
        assert text.startswith("RAY_ADDRESS: got 'a node at 127.0.0.1 with ladder-distillation 0.0.1, torch ")
        assert text.endswith("Install the same versions for all workers.")

    def test_an_address_where_nothing_or_something_else_answers(self, host: Host) -> None:
        began = time.monotonic()
        kind, text, _ = host.train("one", 1, variables={ADDRESS: "127.0.0.1:9"})
        assert kind == "UserError"
        assert text.startswith("RAY_ADDRESS: got '127.0.0.1:9'; allowed: the head of a cluster of Ray 2.")
        serve = "import socket, time; s = socket.create_server(('127.0.0.1', 9)); time.sleep(600)"
        silent = host.start("-c", serve)
        (host.folder / VERSIONS).write_text(json.dumps(versions()))
        driver = host.start("-c", DRIVE, **{ADDRESS: "127.0.0.1:9"})
        driver.communicate(timeout=SECONDS)
        silent.kill()
        silent.communicate()
        assert read_json(host.folder / OUTCOME)["text"] == text
        assert time.monotonic() - began < SECONDS


def test_what_cannot_begin_is_refused_when_it_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = Compute(launcher="ray", workers=2, device="cpu")
    monkeypatch.delenv(ADDRESS, raising=False)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "ray", None)
        with pytest.raises(UserError, match=r"^compute.launcher: got 'ray'; allowed: ray with Ray installed, which it is not. Run `pip"):
            check_workers(compute, Training(steps=2), None, "one")
    if find_spec("ray") is not None:
        monkeypatch.setenv(ADDRESS, "ray://head:10001")
        with pytest.raises(UserError, match=r"^RAY_ADDRESS: got 'ray://head:10001'; allowed: HOST:PORT of the head of a Ray cluster"):
            check_workers(compute, Training(steps=2), None, "one")


def test_an_evaluation_stays_on_the_machine_of_its_run() -> None:
    assert shares_of(Compute(launcher="ray", workers=4_000), 4_000) == len(os.sched_getaffinity(0))
    assert shares_of(Compute(launcher="torchrun", workers=3), 2) == 2
    assert shares_of(Compute(), 2) == 1
