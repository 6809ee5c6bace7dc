"""A run that a person cancels, or that is asked to end, writes a checkpoint and ends; the same command goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace as Helpers
from typing import Any

import httpx
import psutil
import pytest

BOUND = 15.0  # seconds from the request to the end of the process


class Api:
    """Prefect's server, asked as its own web page asks it."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self.http.post(path, json=body).raise_for_status().json()

    def cancel(self, flow_run_id: str) -> None:
        answer = self.post(f"/flow_runs/{flow_run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False})
        assert answer["status"] == "ACCEPT", answer

    def state(self, flow_run_id: str) -> str:
        return self.http.get(f"/flow_runs/{flow_run_id}").raise_for_status().json()["state_type"]

    def subflows(self, flow_run_id: str) -> dict[str, str]:
        found = self.post("/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [flow_run_id]}}})
        return {run["id"]: run["state_type"] for run in found}

    def tasks(self, flow_run_id: str) -> dict[str, str]:
        """Name -> state, of all tasks of a flow run and of its subflows."""
        ids = [flow_run_id, *self.subflows(flow_run_id)]
        found = self.post("/task_runs/filter", {"task_runs": {"flow_run_id": {"any_": ids}}})
        return {f"{task['flow_run_id']} {task['name']}": task["state_type"] for task in found}


@pytest.fixture
def api(prefect_api: str) -> Iterator[Api]:
    with httpx.Client(base_url=prefect_api, trust_env=False, timeout=30) as http:
        yield Api(http)


def in_stage_two(cli: Any, log: Path, helpers: Helpers, *args: object) -> subprocess.Popen[str]:
    """A run in the middle of the training of its second stage."""
    with log.open("w") as file:
        process = cli.start("run", *args, stdout=file, stderr=file)

    def training() -> bool:
        assert process.poll() is None, log.read_text()
        return "two: computed" in log.read_text() and len(list((cli.home / "store" / "work").glob("*/step-*"))) > 0

    helpers.wait_for(training, "a checkpoint of stage two")
    return process


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    own = psutil.Process(process.pid)
    return [own, *own.children(recursive=True)]


def newest_checkpoint(home: Path) -> int:
    return max((int(path.name.removeprefix("step-")) for path in (home / "store" / "work").glob("*/step-*")), default=0)


LONG = "stages.two.training.steps=4000"


def test_cancelled_in_training_it_stops_at_a_checkpoint_and_goes_on(cli, tiny, api, undisturbed, tmp_path, helpers: Helpers):
    log = tmp_path / "cancelled.log"
    # A checkpoint every step, so that the training lasts; what a run saves when does not change its weights.
    often = "stages.two.training.checkpoint_every=1"
    process = in_stage_two(cli, log, helpers, tiny, often)
    began, processes = time.monotonic(), family(process)
    said = cli("cancel")
    assert process.wait(BOUND) == 130
    took = time.monotonic() - began
    print(f"ladder cancel: ended in {took:.1f} s: {said.out.strip()}")
    assert took < BOUND
    assert psutil.wait_procs(processes, timeout=5)[1] == []
    assert ": cancelled after " in said.out
    assert "Traceback" not in log.read_text()
    assert "goes on from there" in log.read_text()

    shown = cli.json("show")
    step = newest_checkpoint(cli.home)
    assert (shown["status"], shown["error"]) == ("cancelled", f"cancelled in the training of two, at step {step} of 120")
    flow_run = shown["prefect_run_id"]
    assert api.state(flow_run) == "CANCELLED"
    assert sorted(api.subflows(flow_run).values()) == ["CANCELLED", "COMPLETED"]
    helpers.wait_for(
        lambda: set(api.tasks(flow_run).values()) == {"COMPLETED", "CANCELLED"}, f"the tasks' states {api.tasks(flow_run)}", 20
    )
    from mlflow import MlflowClient

    client = MlflowClient(shown["mlflow_uri"])
    assert client.get_run(shown["mlflow_run_id"]).info.status == "KILLED"
    assert helpers.half_written(cli.home) == []

    again = cli("run", tiny, often)
    resumed = cli.json("show")
    assert f"two: resumed from step {step} " in again.err
    assert (resumed["status"], resumed["run"], resumed["stages"][1]["resumed_at"]) == ("done", shown["run"], step)
    assert cli.hashes() == undisturbed.hashes()
    assert api.state(resumed["prefect_run_id"]) == "COMPLETED"


def test_cancelled_through_prefect_alone(cli, tiny, api, tmp_path, helpers: Helpers):
    process = in_stage_two(cli, tmp_path / "run.log", helpers, tiny, LONG)
    flow_run, began = cli.json("show")["prefect_run_id"], time.monotonic()
    api.cancel(flow_run)
    assert process.wait(BOUND) == 130
    print(f"cancelled through the API: ended in {time.monotonic() - began:.1f} s")
    assert cli.json("show")["status"] == "cancelled"
    assert api.state(flow_run) == "CANCELLED"


def test_sigterm_leaves_a_checkpoint_of_the_last_step(cli, tiny, tmp_path, helpers: Helpers):
    process = in_stage_two(cli, tmp_path / "run.log", helpers, tiny, LONG)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(BOUND) == 130
    print(f"SIGTERM: ended in {time.monotonic() - began:.1f} s")
    shown = cli.json("show")
    assert shown["status"] == "interrupted"
    from mlflow import MlflowClient

    client = MlflowClient(shown["mlflow_uri"])
    child = f"tags.`mlflow.parentRunId` = '{shown['mlflow_run_id']}' and tags.`ladder.stage` = 'two'"
    (run,) = client.search_runs([client.get_run(shown["mlflow_run_id"]).info.experiment_id], child)
    assert client.get_metric_history(run.info.run_id, "train/loss")[-1].step == newest_checkpoint(cli.home)


def test_a_run_that_waits_is_cancelled_too(cli, tiny, api, tmp_path, helpers: Helpers):
    """It has no step at which it could stop: here it waits for the store's lock on its data."""
    log = tmp_path / "waiting.log"
    blocker = in_stage_two(cli, tmp_path / "first.log", helpers, tiny, LONG)
    with log.open("w") as file:
        waiting = cli.start("run", tiny, "name=other", LONG, stdout=file, stderr=file)
    helpers.wait_for(lambda: "one: found" in log.read_text(), "the second run to come to stage two")
    record = next(r for r in cli.json("runs") if r["run"].startswith("other"))
    began = time.monotonic()
    said = cli("cancel", record["run"])
    assert waiting.wait(BOUND) == 130, log.read_text()
    print(f"cancelled while waiting: {time.monotonic() - began:.1f} s: {said.out.strip()}")
    assert ": cancelled after " in said.out
    shown = cli.json("show", record["run"])
    assert shown["status"] == "cancelled"
    assert api.state(shown["prefect_run_id"]) == "CANCELLED"
    assert set(api.subflows(shown["prefect_run_id"]).values()) <= {"CANCELLED", "COMPLETED"}
    os.killpg(blocker.pid, signal.SIGKILL)


def test_nothing_to_cancel(finished):
    assert "RUN: got None; allowed: the name of a running run: none runs now." in finished("cancel", code=2).err
    name = finished.json("show")["run"]
    assert "This one is done." in finished("cancel", name, code=2).err
    assert "RUN: got 'nosuch'" in finished("cancel", "nosuch", code=2).err


SERVE = """
from conf.home import home
from flows.environment import prepare_environment
prepare_environment(home())
from flows.distill import distill
distill.serve(name="distill")
"""


@pytest.fixture
def runner(cli, tmp_path: Path, helpers: Helpers) -> Iterator[psutil.Process]:
    """Prefect's own runner, which serves the deployment `distill/distill`."""
    env = helpers.clean_environment(LADDER_HOME=str(cli.home), LADDER_ROOTS="/", PREFECT_RUNNER_POLL_FREQUENCY="1", **cli.env)
    with (tmp_path / "runner.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", SERVE], env=env, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    yield psutil.Process(process.pid)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_served_run_is_cancelled_in_the_ui(cli, tiny, api, runner, tmp_path, helpers: Helpers):
    def deployment() -> str | None:
        found = api.http.get("/deployments/name/distill/distill")
        return found.json()["id"] if found.status_code == httpx.codes.OK else None

    started = helpers.wait_for(deployment, f"the deployment, see {tmp_path}/runner.log", 120)
    asked = {"parameters": {"ladder": str(tiny), "overrides": [LONG]}}
    flow_run = api.post(f"/deployments/{started}/create_flow_run", asked)["id"]
    helpers.wait_for(lambda: newest_checkpoint(cli.home) >= 5 and "two <- one" in str(api.tasks(flow_run)), "stage two", 180)
    worker = helpers.wait_for(lambda: [p for p in runner.children(recursive=True) if "resource_tracker" not in str(p.cmdline())], "it", 5)
    api.cancel(flow_run)
    began = time.monotonic()
    gone, alive = psutil.wait_procs(worker, timeout=BOUND)
    print(f"cancelled in the UI, served: ended in {time.monotonic() - began:.1f} s")
    assert alive == []
    helpers.wait_for(lambda: api.state(flow_run) == "CANCELLED", "Prefect to show it", 45)
    print(f"and was shown as cancelled after {time.monotonic() - began:.1f} s")
    shown = cli.json("show")
    assert shown["status"] == "cancelled"
    assert shown["error"] == f"cancelled in the training of two, at step {newest_checkpoint(cli.home)} of 4000"
    assert set(api.subflows(flow_run).values()) == {"COMPLETED", "CANCELLED"}
