"""A training shared by several machines: the model of one process, whichever machine comes or goes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from conf.errors import UserError
from conf.home import Home
from conf.schema.compute import Compute
from tasks.teachers.teacher import prepare_teacher
from tasks.training.workers.check import check_workers
from tasks.training.workers.join import announce, join, refusals
from tasks.training.workers.order import VERSIONS, versions
from tasks.training.workers.rendezvous import interfaces, require_own
from tests.factories import write_functions
from tests.flows.driver import clean_environment
from tests.hosts import Hosts, hosts
from tests.tasks.training.launched import NEVER, SECONDS, outcome, training
from tests.tasks.training.test_workers import apart, checkpoints_in, inputs_in, ladder_of, losses, wait_until

PLACE = "10.77.0.1:29400"
TWO = {"nodes": 2, "rendezvous": PLACE}
# Names of its own for a host and its processes, which end with the first of them.
ALONE = ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", 'hostname "$0"; exec "$@"']


class Machines:
    """Two machines that see one disk: `server`, where runs are, and `a`."""

    def __init__(self, made: Hosts, folder: Path) -> None:
        self.made, self.folder = made, folder
        self.running: list[subprocess.Popen[str]] = []

    def start(self, host: str, *arguments: str, home: str) -> subprocess.Popen[str]:
        env = clean_environment(LADDER_HOME=str(self.folder / home))
        command = self.made.command(host, *ALONE, host, sys.executable, *arguments)
        said = (self.folder / f"{host}-{len(self.running)}.log").open("w+")
        process = subprocess.Popen(command, env=env, cwd=self.folder, stdout=subprocess.PIPE, stderr=said, text=True)
        self.running.append(process)
        said.close()
        return process

    def said(self, host: str) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob(f"{host}-*.log")))

    def train(self, steps: int) -> subprocess.Popen[str]:
        return self.start("server", *training(self.folder, "two", 1, steps, TWO), home="two")

    def join(self) -> subprocess.Popen[str]:
        return self.start("a", "-m", "flows.cli.app", "join", home="two")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    write_functions(tmp_path)
    with hosts("a") as made:
        both = Machines(made, tmp_path)
        yield both
        for process in both.running:
            process.kill()
            process.communicate()


slow = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(2 * SECONDS)]


class TestTwoMachines:
    pytestmark = slow

    def test_they_train_as_one_process_does(self, machines: Machines) -> None:
        here = prepare_teacher(inputs_in(machines.folder, ladder_of(0, 6, NEVER), "here"))
        machines.join()
        made = outcome(machines.train(6)).record
        assert "teacher: trains on 2 of 2 machines" in machines.said("server")
        assert made.fingerprint == here.fingerprint
        assert losses(made) == pytest.approx(losses(here), abs=1e-5)
        assert apart(here, made) < 1e-5

    def test_a_machine_that_dies_leaves_the_training_to_the_other(self, machines: Machines) -> None:
        here = prepare_teacher(inputs_in(machines.folder, ladder_of(0, 600, NEVER), "here"))
        node = machines.join()
        run = machines.train(600)
        wait_until(lambda: checkpoints_in(machines.folder / "two") or run.poll() is not None, "a checkpoint", SECONDS)
        node.kill()
        made = outcome(run).record
        assert "teacher: trains on 2 of 2 machines" in machines.said("server")
        assert "teacher: trains on 1 of 2 machines" in machines.said("server")
        assert made.resumed_at is not None
        assert made.resumed_at >= 2
        assert apart(here, made) < 1e-4

    def test_a_machine_that_comes_later_joins_and_one_that_leaves_loses_no_step(self, machines: Machines) -> None:
        run = machines.train(100_000)
        wait_until(lambda: checkpoints_in(machines.folder / "two") or run.poll() is not None, "a checkpoint", SECONDS)
        node = machines.join()
        wait_until(lambda: "trains on 2 of 2 machines" in machines.said("server") or run.poll() is not None, "the other machine", SECONDS)
        assert run.poll() is None, machines.said("server")
        before = len(machines.said("server"))
        (child,) = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
        signal.pidfd_send_signal(open_pid(int(child)), signal.SIGINT)
        assert node.wait(SECONDS) == 0
        wait_until(lambda: "trains on 1 of 2 machines" in machines.said("server")[before:], "the rest of the training", SECONDS)
        (child,) = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        signal.pidfd_send_signal(open_pid(int(child)), signal.SIGTERM)
        ended = outcome(run)
        assert ended.kind == "RunInterrupted", ended.text
        seen = [json.loads(line) for line in next((machines.folder / "two").rglob("events.jsonl")).read_text().splitlines()]
        steps = [event["step"]["step"] for event in seen if "step" in event]
        assert steps == list(range(1, len(steps) + 1)), "none was lost and none repeated"


def open_pid(pid: int) -> int:
    import os

    return os.pidfd_open(pid)


def test_settings_of_several_machines() -> None:
    with pytest.raises(ValidationError, match=r"got nodes 2 with launcher 'local'; allowed: 1. Set launcher: torchrun, or leave nodes out"):
        Compute(nodes=2, rendezvous=PLACE)
    for nodes, place in ((2, None), (1, PLACE)):
        with pytest.raises(
            ValidationError, match=rf"got nodes {nodes} with rendezvous .*; allowed: several nodes with HOST:PORT of the run's"
        ):
            Compute(launcher="torchrun", nodes=nodes, rendezvous=place)
    with pytest.raises(ValidationError, match="pattern"):
        Compute(launcher="torchrun", nodes=2, rendezvous="http://here:1")
    ladder = ladder_of(2, nodes=3, rendezvous=PLACE)
    assert ladder.compute.processes == 6
    with pytest.raises(
        UserError,
        match=r"compute.workers: got 2; allowed: at most 1, the examples of a micro-batch of one for each of 3 machines. Lower it",
    ):
        check_workers(ladder.compute, ladder.stages[0].training, None, "one")


@pytest.mark.parametrize(
    ("place", "why"), [("no-such-host.invalid:29400", "reach it; .*"), ("192.0.2.1:29400", "reach it; 192.0.2.1 is none of its addresses")]
)
def test_a_rendezvous_must_be_on_this_machine(place: str, why: str) -> None:
    with pytest.raises(UserError, match=rf"^compute.rendezvous: got '{place}'; allowed: HOST:PORT of this machine, as the others {why}"):
        require_own(place)


def test_a_rendezvous_needs_a_free_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"^compute.rendezvous: got '{place}'; .* with a free port; Address already in use"):
            require_own(place)
    require_own(place)
    assert set(interfaces(place).values()) == {"lo"}


def test_a_machine_with_another_version_says_so_there_and_to_the_run(tmp_path: Path) -> None:
    folder = Home(tmp_path).store / "checkpoints" / "0123" / "workers"
    folder.mkdir(parents=True)
    (folder / VERSIONS).write_text(json.dumps(versions() | {"torch": "0.0.1"}))
    with socket.create_server(("127.0.0.1", 0)) as run:
        announce(folder, "small", Compute(launcher="torchrun", nodes=2, rendezvous=f"127.0.0.1:{run.getsockname()[1]}"))
        lines: list[str] = []
        with pytest.raises(UserError, match=r"^compute.launcher: got 'a worker with .*; allowed: .*torch 0.0.1.* Install the same"):
            join(Home(tmp_path), lines.append)
    assert not lines
    (told,) = refusals(folder)
    assert told.startswith(f"{socket.gethostname()} does not join: compute.launcher: got 'a worker with ")
    assert not list(refusals(folder))
