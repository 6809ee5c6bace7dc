"""A run killed anywhere is resumed by the same command to bit-equal weights."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.flows.driver import (
    Cli,
    Process,
    actions,
    clean_environment,
    half_written,
    home_with_database,
    last_flow_run,
    run_python,
    wait_for,
)


def begin(cli, log: Path, *args) -> Process:
    return cli.start_logged(log, *args)


def checkpoints_of_stage_two(cli, log: Path, wanted: int) -> bool:
    steps = sorted(path.name for path in (cli.home / "store" / "checkpoints").glob("*/step-*"))
    return "two: computed" in log.read_text() and len(steps) >= wanted


def loss_points(cli, stage: str) -> list[int]:
    from mlflow import MlflowClient

    shown = cli.json("show")
    client = MlflowClient(shown["mlflow_uri"])
    run_id = next(s["mlflow_run_id"] for s in shown["stages"] if s["name"] == stage)
    return [point.step for point in client.get_metric_history(run_id, "train/loss")]


@pytest.mark.slow
def test_a_run_killed_in_stage_two_is_continued_to_the_same_weights(cli, tiny, undisturbed, tmp_path):
    log = tmp_path / "killed.log"
    process = begin(cli, log, "run", tiny)
    wait_for(lambda: checkpoints_of_stage_two(cli, log, 1) or process.poll() is not None, "a checkpoint of stage two")
    time.sleep(random.uniform(0, 0.5))
    assert process.poll() is None, "the run ended before it was killed"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert half_written(cli.home) == []
    killed = cli.json("show")
    assert (killed["status"], [s["name"] for s in killed["stages"]]) == ("interrupted", ["one"])
    assert cli.json("plan", tiny)["stages"][1]["action"] == "resume"

    again = cli("run", tiny)
    shown = cli.json("show")
    assert actions(again.err) == {"teacher": "reused", "one": "reused", "two": "resumed", "three": "computed"}
    assert (shown["run"], shown["mlflow_run_id"]) == (killed["run"], killed["mlflow_run_id"])
    assert shown["status"] == "done"
    assert 0 < shown["stages"][1]["resumed_at"] < 120
    assert cli.hashes() == undisturbed.hashes()
    assert half_written(cli.home) == []
    assert list((cli.home / "store" / "checkpoints").iterdir()) == []
    assert Counter(loss_points(cli, "two")) == Counter(range(1, 121))


@pytest.mark.slow
def test_ctrl_c_in_stage_two_is_continued_too(bare, tiny, undisturbed, tmp_path):
    import psutil

    log = tmp_path / "interrupted.log"
    process = begin(bare, log, "run", tiny)
    wait_for(lambda: checkpoints_of_stage_two(bare, log, 1) or process.poll() is not None, "a checkpoint of stage two")
    servers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: a server in our group would be gone before the run has noted its end
    assert process.wait(120) == 130
    assert psutil.wait_procs(servers, timeout=60)[1] == []
    said = log.read_text()
    assert "Traceback" not in said
    assert "interrupted; finished models stay in the store, and the same command continues from there" in said
    assert bare.json("show")["status"] == "interrupted"
    assert half_written(bare.home) == []

    again = bare("run", tiny)
    assert actions(again.err) == {"teacher": "reused", "one": "reused", "two": "resumed", "three": "computed"}
    assert bare.hashes() == undisturbed.hashes()


REAP = """
import json, sys, time
from conf.home import home
from flows.serving.environment import prepare_environment
prepare_environment(home())
from tasks.lifecycle.dead_runs import reap, restart_dead
began = time.monotonic()
dead = reap(home())
again = [str(run) for run in restart_dead(home())] if sys.argv[1:] == ["restart"] else []
print(json.dumps({"dead": [record.run for record in dead], "restarted": again, "seconds": time.monotonic() - began}))
"""


def reap(cli, *args: str) -> dict[str, Any]:
    """What `ladder serve` does every few seconds."""
    env = clean_environment(LADDER_HOME=str(cli.home), **cli.env)
    done = run_python(REAP, *args, env=env)
    assert done.code == 0, done.err
    return json.loads(done.out)


LONG = ("stages.two.training.steps=2000",)


def killed_in_stage_two(cli, tiny: Path, log: Path, *args: object) -> Any:
    process = begin(cli, log, "run", tiny, *LONG, *args)
    wait_for(lambda: checkpoints_of_stage_two(cli, log, 1) or process.poll() is not None, "a checkpoint of stage two")
    shown = last_flow_run(cli)
    wait_for(lambda: "RUNNING" in shown.tasks.values(), "Prefect to show the tasks", 30)
    process.kill()
    process.wait()
    return shown


@pytest.mark.slow
def test_a_killed_run_is_shown_as_crashed(cli, tiny, tmp_path):
    from mlflow import MlflowClient

    shown = killed_in_stage_two(cli, tiny, tmp_path / "run.log")
    time.sleep(2)  # what Prefect had heard of the tasks is in its database by now
    assert (shown.state, sorted(shown.subflows.values())) == ("RUNNING", ["COMPLETED", "RUNNING"])
    assert json.loads(next(cli.home.glob("runs/*/record.json")).read_text())["status"] == "running"

    found = reap(cli)
    print(f"reaped in {found['seconds']:.1f} s")
    record = json.loads(next(cli.home.glob("runs/*/record.json")).read_text())
    assert found["dead"] == [record["run"]]
    assert (record["status"], record["error"]) == ("interrupted", "the process ended without recording its end")
    assert (shown.state, sorted(shown.subflows.values())) == ("CRASHED", ["COMPLETED", "CRASHED"])
    assert set(shown.tasks.values()) == {"COMPLETED", "CRASHED"}
    client = MlflowClient(record["mlflow_uri"])
    assert client.get_run(record["mlflow_run_id"]).info.status == "KILLED"
    children = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{record['mlflow_run_id']}'")
    assert {child.info.status for child in children} == {"FINISHED", "KILLED"}
    assert list(cli.home.glob("locks/flow-*")) == []

    again = reap(cli)
    assert again["dead"] == []
    assert again["seconds"] < 0.5, "nothing is to do"


@pytest.mark.slow
def test_the_next_run_shows_the_dead_one_as_crashed(cli, tiny, tmp_path):
    dead = killed_in_stage_two(cli, tiny, tmp_path / "run.log", "stages.two.training.checkpoint_every=100")
    again = begin(cli, tmp_path / "again.log", "run", tiny, *LONG, "stages.two.training.checkpoint_every=100")
    wait_for(lambda: "resumed from step" in (tmp_path / "again.log").read_text(), "the run to go on")
    assert dead.state == "CRASHED"
    assert "RUNNING" not in dead.subflows.values()
    living = last_flow_run(cli)
    assert (living.flow_run != dead.flow_run, living.state) == (True, "RUNNING")
    again.send_signal(signal.SIGTERM)
    assert again.wait(60) == 130
    assert (living.state, living.state_name) == ("CANCELLED", "Interrupted"), "no crash, of which an alarm would tell"
    assert set(living.subflows.values()) == {"COMPLETED", "CANCELLED"}
    assert set(living.tasks.values()) == {"COMPLETED", "CANCELLED"}


@pytest.mark.slow
def test_a_flow_run_whose_server_comes_back_late_is_ended_then(cli, tiny, tmp_path):
    shown = killed_in_stage_two(cli, tiny, tmp_path / "run.log")
    away = Cli(cli.home, {"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert len(reap(away)["dead"]) == 1, "the record tells the truth without a server, too"
    assert shown.state == "RUNNING"
    assert reap(cli)["dead"] == []
    assert shown.state == "CRASHED"


def on_disk(cli) -> dict[str, Any]:
    (path,) = cli.home.glob("runs/*/record.json")
    return json.loads(path.read_text())


def runs_as_attempt(cli, attempt: int) -> bool:
    shown = on_disk(cli)
    return (shown["attempt"], shown["status"]) == (attempt, "running")


@pytest.mark.slow
def test_a_run_that_always_dies_is_restarted_a_bounded_number_of_times(cli, tiny, tmp_path):
    """A real runner, a real `kill -9` of each attempt; and then a person's own attempt, which succeeds."""
    import psutil

    code = "from flows.serving.environment import prepare_environment; from conf.home import home; prepare_environment(home())\n"
    code += "from flows.distill import distill; distill.serve(name='distill')"
    env = clean_environment(LADDER_HOME=str(cli.home), LADDER_ROOTS="/", PREFECT_RUNNER_POLL_FREQUENCY="1", **cli.env)
    with (tmp_path / "runner.log").open("w") as log:
        runner = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    try:
        killed_in_stage_two(cli, tiny, tmp_path / "run.log", "compute.restarts=2", "stages.two.training.checkpoint_every=100")
        runs, began = [], time.monotonic()
        for attempt in (2, 3):
            runs += reap(cli, "restart")["restarted"]
            wait_for(partial(runs_as_attempt, cli, attempt), f"attempt {attempt}: {runs}, see {tmp_path}/runner.log")
            time.sleep(3)
            victim = psutil.Process(on_disk(cli)["pid"])
            victim.kill()
            wait_for(lambda: cli.json("show")["status"] == "interrupted", "its death")
            print(f"attempt {attempt} ran and was killed after {time.monotonic() - began:.0f} s")
        last = reap(cli, "restart")
        assert (len(last["dead"]), last["restarted"]) == (1, [])
        assert len(set(runs)) == 2
        assert len(cli.json("runs")) == 1, "each attempt continues the same run"
        shown = last_flow_run(cli)
        assert {shown.flow_run} <= set(runs)
        wait_for(lambda: shown.state == "CRASHED", "Prefect to show it", 30)
    finally:
        os.killpg(runner.pid, signal.SIGTERM)
        runner.wait(60)
    cli("run", tiny, *LONG, "compute.restarts=2", "stages.two.training.checkpoint_every=100")
    done = cli.json("show")
    assert (done["status"], done["attempt"]) == ("done", 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_the_embedded_server_dies_with_the_run(tiny, tmp_path, empty_database, name):
    import psutil

    log = tmp_path / "run.log"
    process = begin(Cli(home_with_database(tmp_path / "home", empty_database)), log, "run", tiny, "teacher.training.steps=5000")
    wait_for(lambda: "teacher: computed" in log.read_text() or process.poll() is not None, "the training to begin")
    servers = psutil.Process(process.pid).children(recursive=True)
    assert any("users_watchdog.py" in part for server in servers for part in server.cmdline())
    process.send_signal(getattr(signal, name))
    assert process.wait(120) == (-signal.SIGKILL if name == "SIGKILL" else 130)
    assert psutil.wait_procs(servers, timeout=60)[1] == []
    assert "Traceback" not in log.read_text()
