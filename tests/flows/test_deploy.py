"""A work pool: server, worker and store as separate processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace as Helpers
from typing import Any

import httpx
import pytest


def ask(api: str, method: str, path: str, **more: Any) -> Any:
    answer = httpx.request(method, api + path, timeout=60, trust_env=False, **more)
    answer.raise_for_status()
    return answer.json() if answer.content else None


@pytest.fixture
def pool(prefect_api: str) -> str:
    name = f"pool-{time.monotonic_ns()}"
    ask(prefect_api, "POST", "/work_pools/", json={"name": name, "type": "process"})
    return name


def test_mistakes_are_named(cli, bare, pool: str):
    assert f"--work-pool: got 'nowhere'; allowed: {pool}" in cli("deploy", "--work-pool", "nowhere", code=2).err
    assert "PREFECT_API_URL: got None; allowed: the API of a Prefect server that stays" in bare("deploy", "--work-pool", "x", code=2).err
    assert "--job-variable: got 'image'; allowed: key=value" in cli("deploy", "--work-pool", pool, "--job-variable", "image", code=2).err


def test_deploying_twice_leaves_one_of_each(cli, pool: str, prefect_api: str):
    assert cli("deploy", "--work-pool", pool).out.splitlines() == [f"distill/distill on {pool}", f"one-stage/stage on {pool}"]
    cli("deploy", "--work-pool", pool)
    made = ask(prefect_api, "GET", "/deployments/name/distill/distill")
    assert made["work_pool_name"] == pool
    assert made["job_variables"]["env"]["PREFECT_LOGGING_EXTRA_LOGGERS"] == "ladder"
    slugs = [schedule["slug"] for schedule in made["schedules"]]
    assert len(slugs) == len(set(slugs)) >= 2
    assert not any(schedule["active"] for schedule in made["schedules"])


@pytest.mark.slow
def test_a_worker_runs_it_and_its_death_shows(cli, tiny, pool: str, prefect_api: str, tmp_path: Path, helpers: Helpers):
    cli("deploy", "--work-pool", pool)
    roots = os.pathsep.join([str(Path(tiny).parent), str(cli.home)])
    own = {"PREFECT_API_URL": prefect_api, "LADDER_HOME": str(cli.home), "LADDER_ROOTS": roots, "PREFECT_HOME": str(tmp_path / "worker")}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    with (tmp_path / "worker.log").open("w") as log:
        env = helpers.clean_environment(**own)
        worker = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        deployment = ask(prefect_api, "GET", "/deployments/name/distill/distill")["id"]

        def start(**parameters: Any) -> str:
            body = {"parameters": {"ladder": str(tiny), **parameters}}
            return ask(prefect_api, "POST", f"/deployments/{deployment}/create_flow_run", json=body)["id"]

        def state(run: str) -> dict:
            return ask(prefect_api, "GET", f"/flow_runs/{run}")["state"]

        run = start()
        ended = helpers.wait_for(lambda: (s := state(run))["type"] in ("COMPLETED", "FAILED", "CRASHED") and s, "the run")
        assert ended["type"] == "COMPLETED", f"{ended}\n{(tmp_path / 'worker.log').read_text()}"
        assert cli.json("show")["prefect_run_id"] == run

        outside = start(ladder="/etc/other.yaml")
        refused = helpers.wait_for(lambda: (s := state(outside))["type"] == "FAILED" and s, "the refusal")
        assert "ladder: got '/etc/other.yaml'; allowed: a path inside the allowed folders" in refused["message"]

        killed = start(overrides=["teacher.training.steps=100000"])
        record = helpers.wait_for(lambda: alive(cli.home, killed), "the run's process")
        helpers.wait_for(lambda: list(cli.home.glob("store/checkpoints/*/step-*")), "a checkpoint")
        began = time.monotonic()
        os.kill(record["pid"], signal.SIGKILL)
        helpers.wait_for(lambda: state(killed)["type"] == "CRASHED", "the crash to show", 120)
        print(f"shown as crashed after {time.monotonic() - began:.1f} s")
    finally:
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)


def alive(home: Path, flow_run: str) -> Any:
    for path in home.glob("runs/*/record.json"):
        record = json.loads(path.read_text())
        if record["prefect_run_id"] == flow_run and record["status"] == "running":
            return record
    return None
