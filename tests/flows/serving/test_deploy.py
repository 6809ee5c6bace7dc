"""A work pool: server, worker and store as separate processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.flows.driver import ask_prefect, clean_environment, newest_checkpoint, wait_for

ROOT = Path(__file__).parents[3]
LONG = "teacher.training.steps=100000"
BOUND = 15.0  # seconds from a cancellation to the end of the process


def ask(api: str, method: str, path: str, **more: Any) -> Any:
    answer = ask_prefect(method, api + path, **more)
    answer.raise_for_status()
    return answer.json() if answer.content else None


@pytest.fixture
def pool(prefect_api: str) -> str:
    name = f"pool-{time.monotonic_ns()}"
    ask(prefect_api, "POST", "/work_pools/", json={"name": name, "type": "process"})
    return name


def test_mistakes_are_named(cli, bare, pool: str):
    assert f"--work-pool: got 'nowhere'; allowed: {pool}" in cli("deploy", "--work-pool", "nowhere", code=2).err
    assert "--work-pool: got ''; allowed: " in cli("deploy", "--work-pool", "", code=2).err
    assert "PREFECT_API_URL: got None; allowed: the API of a Prefect server that stays" in bare("deploy", "--work-pool", "x", code=2).err
    assert "--job-variable: got 'image'; allowed: key=value" in cli("deploy", "--work-pool", pool, "--job-variable", "image", code=2).err


@pytest.mark.slow
def test_deploying_twice_leaves_one_of_each(cli, pool: str, prefect_api: str):
    others = ("search", "prove", "report", "compare", "export", "redistill", "promote", "monitor")
    names = ("distill/distill", "distill/scheduled", "one-stage/stage", *(f"{name}/{name}" for name in others))
    assert cli("deploy", "--work-pool", pool).out.splitlines() == [f"{name} on {pool}" for name in names]
    cli("deploy", "--work-pool", pool)
    made = ask(prefect_api, "GET", "/deployments/name/distill/scheduled")
    assert made["work_pool_name"] == pool
    limit = made["global_concurrency_limit"]["limit"], made["concurrency_options"]["collision_strategy"]
    assert limit == (1, "CANCEL_NEW"), "a schedule shorter than its run is skipped"
    assert made["job_variables"]["env"]["PREFECT_LOGGING_EXTRA_LOGGERS"] == "ladder"
    slugs = [schedule["slug"] for schedule in made["schedules"]]
    assert len(slugs) == len(set(slugs)) >= 2
    assert not any(schedule["active"] for schedule in made["schedules"])


@pytest.mark.slow
def test_heartbeats_come_often_enough_for_the_automation_of_silent_runs(cli, pool: str, prefect_api: str):
    cli("deploy", "--work-pool", pool)
    sent = int(ask(prefect_api, "GET", "/deployments/name/distill/distill")["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    trigger = yaml.safe_load((ROOT / "docs" / "how-to" / "deploying" / "silent-runs.yaml").read_text())["automations"][0]["trigger"]
    assert 2 * sent < trigger["within"]


@dataclass
class Pool:
    """A worker of a process pool, and what can be asked of it."""

    api: str
    home: Path
    worker: subprocess.Popen[bytes]
    log: Path

    def start(self, ladder: object, *overrides: str) -> str:
        deployment = ask(self.api, "GET", "/deployments/name/distill/distill")["id"]
        body = {"parameters": {"ladder": str(ladder), "overrides": overrides}}
        return ask(self.api, "POST", f"/deployments/{deployment}/create_flow_run", json=body)["id"]

    def state(self, run: str) -> dict[str, Any]:
        return ask(self.api, "GET", f"/flow_runs/{run}")["state"]

    def wait(self, run: str, *kinds: str, seconds: float = 400.0) -> dict[str, Any]:
        """The state of a run once it is of one of these kinds."""
        what = f"{run} to be {' or '.join(kinds)}"
        return wait_for(lambda: (now := self.state(run))["type"] in kinds and now, what, seconds)

    def training(self, ladder: object) -> tuple[str, psutil.Process]:
        """A run that has written a checkpoint, and its process."""
        run = self.start(ladder, LONG)
        record = wait_for(lambda: alive(self.home, run), "the run's process")
        wait_for(lambda: newest_checkpoint(self.home), "a checkpoint")
        return run, psutil.Process(record["pid"])


@pytest.fixture
def working(cli, tiny, pool: str, prefect_api: str, tmp_path: Path) -> Iterator[Pool]:
    """The deployments on a pool, and a worker that serves it."""
    cli("deploy", "--work-pool", pool)
    roots = os.pathsep.join([str(Path(tiny).parent), str(cli.home)])
    own = {"PREFECT_API_URL": prefect_api, "LADDER_HOME": str(cli.home), "LADDER_ROOTS": roots, "PREFECT_HOME": str(tmp_path / "worker")}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    with (tmp_path / "worker.log").open("w") as log:
        env = clean_environment(**own)
        worker = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        yield Pool(prefect_api, cli.home, worker, tmp_path / "worker.log")
    finally:
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_runs_it_and_its_death_shows(cli, tiny, working: Pool):
    run = working.start(tiny)
    ended = working.wait(run, "COMPLETED", "FAILED", "CRASHED")
    assert ended["type"] == "COMPLETED", f"{ended}\n{working.log.read_text()}"
    assert cli.json("show")["prefect_run_id"] == run

    refused = working.wait(working.start("/etc/other.yaml"), "FAILED")
    assert "ladder: got '/etc/other.yaml'; allowed: a path inside the allowed folders" in refused["message"]

    killed, process = working.training(tiny)
    began = time.monotonic()
    process.kill()
    working.wait(killed, "CRASHED", seconds=120)
    print(f"kill -9 of a worker's run: shown as crashed after {time.monotonic() - began:.1f} s")


@pytest.mark.slow
def test_cancelled_under_a_worker(cli, tiny, working: Pool):
    run, process = working.training(tiny)
    processes = [process, *process.children(recursive=True)]
    began = time.monotonic()
    ask(working.api, "POST", f"/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert psutil.wait_procs(processes, timeout=BOUND)[1] == []
    print(f"cancelled under a worker: ended in {time.monotonic() - began:.1f} s")
    working.wait(run, "CANCELLED", seconds=10)
    shown = cli.json("show")
    assert shown["status"] == "cancelled"
    assert shown["error"].startswith("cancelled in the training of teacher, at step ")


@pytest.mark.slow
def test_the_worker_dies_and_its_run_goes_on(cli, tiny, working: Pool):
    """A run needs its worker for its beginning alone; where both die, Prefect's automation of silent runs says so."""
    automation = ROOT / "docs" / "how-to" / "deploying" / "silent-runs.yaml"
    command = [sys.executable, "-m", "prefect", "--no-prompt", "automation", "create", "--from-file", str(automation)]
    env = clean_environment(PREFECT_API_URL=working.api, PREFECT_HOME=str(cli.home.parent / "prefect"))
    subprocess.run(command, env=env, check=True, capture_output=True)
    silent, process = working.training(tiny)
    orphan = working.start(tiny, "seed=1", "compute.at_once=null")
    wait_for(lambda: alive(cli.home, orphan), "the second run's process")
    began = time.monotonic()
    working.worker.kill()
    process.kill()
    assert working.wait(orphan, "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"
    assert next(record for record in records(cli.home) if record["prefect_run_id"] == orphan)["status"] == "done"
    found = working.wait(silent, "CRASHED", seconds=150)
    took = time.monotonic() - began
    print(f"kill -9 of worker and run: shown as crashed after {took:.1f} s: {found['message']}")
    assert took < 120


def records(home: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in home.glob("runs/*/record.json")]


def alive(home: Path, flow_run: str) -> Any:
    return next((known for known in records(home) if known["prefect_run_id"] == flow_run and known["status"] == "running"), None)
