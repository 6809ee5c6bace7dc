"""A cancelled or terminated run writes a checkpoint and is resumed from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.flows.driver import (
    Cli,
    FlowRun,
    Process,
    ask_prefect,
    clean_environment,
    half_written,
    last_flow_run,
    newest_checkpoint,
    wait_for,
)

BOUND = 15.0  # seconds from the request to the end of the process


def in_stage_two(cli: Cli, log: Path, *args: object) -> Process:
    """A run in the middle of the training of its second stage."""
    process = cli.start_logged(log, "run", *args)

    def training() -> bool:
        assert process.poll() is None, log.read_text()
        return "two: computed" in log.read_text() and newest_checkpoint(cli.home) > 0

    wait_for(training, "a checkpoint of stage two")
    return process


def family(process: Process) -> list[psutil.Process]:
    own = psutil.Process(process.pid)
    return [own, *own.children(recursive=True)]


LONG = "stages.two.training.steps=4000"


@pytest.mark.slow
def test_cancelled_in_prefect_it_stops_at_a_checkpoint_and_goes_on(cli, tiny, undisturbed, tmp_path):
    log = tmp_path / "cancelled.log"
    # So that these few steps last; when a run saves and validates changes nothing in its weights.
    slow = "stages.two.training.checkpoint_every=1", "stages.two.training.validate_every=1"
    process = in_stage_two(cli, log, tiny, *slow)
    prefect, processes, began = last_flow_run(cli), family(process), time.monotonic()
    prefect.cancel()
    assert process.wait(BOUND) == 130
    print(f"cancelled through Prefect's API: ended in {time.monotonic() - began:.1f} s")
    assert psutil.wait_procs(processes, timeout=5)[1] == []
    assert "Traceback" not in log.read_text()
    assert "continues from there" in log.read_text()

    shown, step = cli.json("show"), newest_checkpoint(cli.home)
    assert (shown["status"], shown["error"]) == ("cancelled", f"cancelled in the training of two, at step {step} of 120")
    assert prefect.state == "CANCELLED"
    assert sorted(prefect.subflows.values()) == ["CANCELLED", "COMPLETED"]
    wait_for(lambda: set(prefect.tasks.values()) == {"COMPLETED", "CANCELLED"}, "the tasks' states", 20)
    from mlflow import MlflowClient

    assert MlflowClient(shown["mlflow_uri"]).get_run(shown["mlflow_run_id"]).info.status == "KILLED"
    assert half_written(cli.home) == []

    again = cli("run", tiny, *slow)
    resumed = cli.json("show")
    assert f"two: resumed from step {step} " in again.err
    assert (resumed["status"], resumed["run"], resumed["stages"][1]["resumed_at"]) == ("done", shown["run"], step)
    assert cli.hashes() == undisturbed.hashes()
    assert last_flow_run(cli).state == "COMPLETED"


@pytest.mark.slow
def test_ladder_cancel(finished, tiny, tmp_path):
    cli = finished
    process = in_stage_two(cli, tmp_path / "run.log", tiny, LONG)
    prefect, processes = last_flow_run(cli), family(process)
    began = time.monotonic()
    said = cli("cancel")
    assert process.wait(BOUND) == 130
    took = time.monotonic() - began
    print(f"ladder cancel: ended in {took:.1f} s, its own start included: {said.out.strip()}")
    assert took < BOUND
    assert psutil.wait_procs(processes, timeout=5)[1] == []
    shown = cli.json("show")
    assert said.out.startswith(f"{shown['run']}: cancelled after ")
    assert f"`ladder rerun {shown['run']}` continues from there" in said.out
    assert shown["status"] == "cancelled"
    assert prefect.state == "CANCELLED"


@pytest.mark.slow
def test_ladder_cancel_under_the_embedded_server(bare, tiny, tmp_path):
    process = in_stage_two(bare, tmp_path / "run.log", tiny, LONG)
    processes = family(process)
    said = bare("cancel")
    assert process.wait(BOUND) == 130
    print(said.out.strip())
    assert ": cancelled after " in said.out
    assert psutil.wait_procs(processes, timeout=15)[1] == [], "its server among them"


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_of_the_last_step(cli, tiny, tmp_path):
    process = in_stage_two(cli, tmp_path / "run.log", tiny, LONG)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(BOUND) == 130
    print(f"SIGTERM: ended in {time.monotonic() - began:.1f} s")
    shown, prefect = cli.json("show"), last_flow_run(cli)
    assert (shown["status"], prefect.state, prefect.state_name) == ("interrupted", "CANCELLED", "Interrupted")
    from mlflow import MlflowClient

    client = MlflowClient(shown["mlflow_uri"])
    child = f"tags.`mlflow.parentRunId` = '{shown['mlflow_run_id']}' and tags.`ladder.stage` = 'two'"
    assert client.get_run(shown["mlflow_run_id"]).info.status == "KILLED"
    (run,) = client.search_runs([client.get_run(shown["mlflow_run_id"]).info.experiment_id], child)
    assert client.get_metric_history(run.info.run_id, "train/loss")[-1].step == newest_checkpoint(cli.home)


@pytest.mark.slow
def test_a_run_that_waits_is_cancelled_too(cli, tiny, tmp_path):
    """It has no step at which it could stop: here it waits for the store's lock on its data."""
    log = tmp_path / "waiting.log"
    blocker = in_stage_two(cli, tmp_path / "first.log", tiny, LONG)
    waiting = cli.start_logged(log, "run", tiny, "name=other", LONG)
    wait_for(lambda: "one: found" in log.read_text(), "the second run to come to stage two")
    record = next(r for r in cli.json("runs") if r["run"].startswith("other"))
    began = time.monotonic()
    said = cli("cancel", record["run"])
    assert waiting.wait(BOUND) == 130, log.read_text()
    print(f"cancelled while waiting: {time.monotonic() - began:.1f} s: {said.out.strip()}")
    assert ": cancelled after " in said.out
    shown = cli.json("show", record["run"])
    assert shown["status"] == "cancelled"
    prefect = last_flow_run(cli)
    assert prefect.flow_run == shown["prefect_run_id"]
    assert prefect.state == "CANCELLED"
    assert set(prefect.subflows.values()) <= {"CANCELLED", "COMPLETED"}
    os.killpg(blocker.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_run_that_asks_a_person_is_cancelled_too(finished, tiny, tmp_path):
    log = tmp_path / "asking.log"
    asking = finished.start_logged(log, "run", tiny, "stages.two.gate.min_root_retention=2", "stages.two.gate.policy=ask")
    wait_for(lambda: "needs a decision" in log.read_text(), f"the question, see {log}", 120)
    wait_for(lambda: last_flow_run(finished).state == "PAUSED", "the pause", 30)
    prefect, said = last_flow_run(finished), finished("cancel")
    assert asking.wait(BOUND) == 130, log.read_text()
    print(f"cancelled while paused: {said.out.strip()}")
    assert "Traceback" not in log.read_text()
    assert finished.json("show")["status"] == "cancelled"
    assert prefect.state == "CANCELLED"


AT_THE_END = """
import sys
from prefect.client.orchestration import get_client
from prefect.states import Cancelling
from tasks.lifecycle.ladder_run import LadderRun

close = LadderRun.__exit__

def closed(run, *error):
    close(run, *error)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.watcher.flow_run_id, Cancelling(), force=True)

LadderRun.__exit__ = closed
from flows.cli.app import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "code", "end"),
    [((), 0, "COMPLETED"), pytest.param(("stages.one.gate.max_parameters=1",), 3, "FAILED", marks=pytest.mark.slow)],
)
def test_cancelled_at_its_very_end_a_run_is_what_its_record_says(finished, tiny, tmp_path, more, code, end):
    env = clean_environment(LADDER_HOME=str(finished.home), **finished.env)
    command = [sys.executable, "-c", AT_THE_END, "run", str(tiny), *more]
    ended = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "teacher" in ended.stdout, "the table"
    shown, prefect = finished.json("show"), last_flow_run(finished)
    assert shown["status"] == ("done" if code == 0 else "stopped")
    assert prefect.state == "CANCELLING", "which the next run corrects, or `ladder serve`"
    finished("run", tiny)
    assert prefect.state == end


LATE = """
import sys
from conf.home import home
from flows.cli import cancel

prepare = cancel.prepare_environment

def slow(place):
    prepare(place)
    print("chosen", flush=True)
    sys.stdin.readline()

cancel.prepare_environment = slow
print(cancel.cancel_run(home(), None))
"""


@pytest.mark.slow
def test_a_run_that_ends_while_it_is_being_cancelled_stays_done(cli, tiny, tmp_path):
    process = in_stage_two(cli, tmp_path / "run.log", tiny)
    env = clean_environment(LADDER_HOME=str(cli.home), **cli.env)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", LATE], env=env, text=True, **pipes) as cancel:
        assert cancel.stdout
        assert cancel.stdout.readline() == "chosen\n"
        assert process.wait(120) == 0
        out, err = cancel.communicate("\n", timeout=60)
    assert cancel.returncode == 0
    assert [line.partition(" ")[2] for line in err.splitlines()] == [f"{cli.json('runs')[0]['run']}: asking it to stop"]
    assert ": done after " in out
    assert last_flow_run(cli).state == "COMPLETED"


STAGE = """
import sys
from conf.home import home
from flows.serving.environment import prepare_environment
prepare_environment(home())
from flows.one_stage import one_stage
one_stage(sys.argv[1], "two", overrides=["stages.two.training.steps=4001"], return_state=True)
"""


@pytest.mark.slow
def test_a_run_of_one_stage_is_cancelled_too(finished, tiny, tmp_path):
    env = clean_environment(LADDER_HOME=str(finished.home), LADDER_ROOTS=str(tiny.parent), **finished.env)
    with (tmp_path / "stage.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", STAGE, str(tiny)], env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: newest_checkpoint(finished.home) > 0 or process.poll() is not None, "a checkpoint of stage two", 120)
        prefect, began = last_flow_run(finished), time.monotonic()
        prefect.cancel()
        process.wait(BOUND)
        print(f"one stage: ended in {time.monotonic() - began:.1f} s")
    finally:
        if process.poll() is None:
            process.kill()
    shown, step = finished.json("show"), newest_checkpoint(finished.home)
    assert (shown["status"], shown["error"]) == ("cancelled", f"cancelled in the training of two, at step {step} of 4001")
    assert prefect.state == "CANCELLED", (tmp_path / "stage.log").read_text()
    assert set(prefect.subflows.values()) == {"CANCELLED"}
    assert finished.json("plan", tiny, "stages.two.training.steps=4001")["stages"][1]["action"] == "resume"


def test_nothing_to_cancel(finished):
    assert "RUN: got None; allowed: the name of a running run: none runs now." in finished("cancel", code=2).err
    name = finished.json("show")["run"]
    assert "This one is done." in finished("cancel", name, code=2).err
    assert "RUN: got 'nosuch'" in finished("cancel", "nosuch", code=2).err


SERVE = """
from conf.home import home
from flows.serving.environment import prepare_environment
prepare_environment(home())
from flows.distill import distill
distill.serve(name="distill")
"""


@pytest.fixture
def runner(cli, tmp_path: Path) -> Iterator[psutil.Process]:
    """Prefect's own runner, which serves the deployment `distill/distill`."""
    env = clean_environment(LADDER_HOME=str(cli.home), LADDER_ROOTS="/", PREFECT_RUNNER_POLL_FREQUENCY="1", **cli.env)
    with (tmp_path / "runner.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", SERVE], env=env, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    yield psutil.Process(process.pid)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_served_run_is_cancelled_in_the_ui(cli, tiny, runner, tmp_path):
    api = cli.env["PREFECT_API_URL"]

    def deployment() -> str | None:
        found = ask_prefect("GET", f"{api}/deployments/name/distill/distill")
        return found.json()["id"] if found.status_code == httpx.codes.OK else None

    started = wait_for(deployment, f"the deployment, see {tmp_path}/runner.log", 120)
    prefect = FlowRun(api, "")
    prefect.flow_run = prefect.post(f"deployments/{started}/create_flow_run", {"parameters": {"ladder": str(tiny), "overrides": [LONG]}})[
        "id"
    ]
    wait_for(lambda: newest_checkpoint(cli.home) >= 5 and "two <- one" in str(prefect.tasks), "stage two", 180)
    worker = wait_for(lambda: [p for p in runner.children(recursive=True) if "resource_tracker" not in str(p.cmdline())], "it", 5)
    prefect.cancel()
    began = time.monotonic()
    _, alive = psutil.wait_procs(worker, timeout=BOUND)
    print(f"cancelled in the UI, served: ended in {time.monotonic() - began:.1f} s")
    assert alive == []
    wait_for(lambda: prefect.state == "CANCELLED", "Prefect to show it", 45)
    print(f"and was shown as cancelled after {time.monotonic() - began:.1f} s")
    shown = cli.json("show")
    assert shown["status"] == "cancelled"
    assert shown["error"] == f"cancelled in the training of two, at step {newest_checkpoint(cli.home)} of 4000"
    assert set(prefect.subflows.values()) == {"COMPLETED", "CANCELLED"}
