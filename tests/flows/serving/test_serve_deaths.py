"""Runs outlive deaths of the processes of `ladder serve`, or are restarted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.flows.driver import FlowRun, clean_environment, newest_checkpoint, wait_for
from tests.flows.served import Server, Start, offer

LAST, TEACHER = "stages.three.training", "teacher.training"
RARELY = [f"{which}.{every}=50" for which in (LAST, TEACHER) for every in ("checkpoint_every", "validate_every")]
LONG = [f"{LAST}.steps=4000", *RARELY]
ENDLESS = [f"{TEACHER}.steps=1000000", *RARELY]
REAP = "from conf.home import home; from tasks.lifecycle.dead_runs import reap; print([record.run for record in reap(home())])"


def runners(server: Server) -> set[psutil.Process]:
    """None for a moment, between the log line and the restart."""
    return {child for child in psutil.Process(server.process.pid).children() if "flows.serving.flow_runner" in child.cmdline()}


def runner_of(server: Server) -> psutil.Process:
    (found,) = runners(server)
    return found


def records(home: Path) -> dict[str, dict[str, Any]]:
    """Records by flow run, as they are on disk."""
    return {record["prefect_run_id"]: record for record in map(json.loads, (path.read_text() for path in home.glob("runs/*/record.json")))}


def shown(server: Server, run: str) -> Any:
    return FlowRun(server.where["prefect_api"], run, server.auth)


def state(server: Server, run: str) -> str:
    """Asked for at leisure: the server has other things to do, too."""
    time.sleep(0.5)
    return shown(server, run).state


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_another_process_has_found_dead_is_restarted(done, tiny, start: Start):
    server = start(done, LADDER_ROOTS=str(tiny.parent))
    first = server.start_run("distill/distill", ladder=str(tiny), overrides=["compute.restarts=1", *LONG])
    wait_for(lambda: newest_checkpoint(done.home) >= 20 and first in records(done.home), "a checkpoint", 120)
    runner, victim = runner_of(server), psutil.Process(records(done.home)[first]["pid"])
    runner.suspend()  # so that the other process is surely the first to look
    victim.kill()
    wait_for(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE, "its death", 10)
    env = clean_environment(
        LADDER_HOME=str(done.home), PREFECT_API_URL=server.where["prefect_api"], PREFECT_API_AUTH_STRING=":".join(server.auth or ())
    )
    found = subprocess.run([sys.executable, "-c", REAP], env=env, capture_output=True, text=True, timeout=60, check=True).stdout
    assert found.strip() == str([records(done.home)[first]["run"]])
    assert state(server, first) == "CRASHED"
    runner.resume()

    began = time.monotonic()

    def second() -> dict[str, Any] | None:
        return next((record for record in records(done.home).values() if record["attempt"] == 2), None)

    again = wait_for(second, "the second attempt", 90)
    print(f"restarted after {time.monotonic() - began:.1f} s")
    psutil.Process(again["pid"]).kill()
    wait_for(lambda: state(server, again["prefect_run_id"]) == "CRASHED", "Prefect to show the second death", 60)
    time.sleep(20)  # the housekeeping comes round again
    assert [record["restarted"] for record in records(done.home).values() if record["error"]] == [None], "one restart, and no more"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_death_of_the_runner_takes_no_run_with_it(done, tiny, start: Start):
    server = start(done, LADDER_ROOTS=str(tiny.parent))
    journal = done.home / "logs" / "runner.log"
    first = server.start_run("distill/distill", ladder=str(tiny), overrides=LONG)
    wait_for(lambda: newest_checkpoint(done.home) >= 20, "a checkpoint", 120)
    second = server.start_run("distill/distill", ladder=str(tiny), overrides=ENDLESS)
    wait_for(lambda: {first, second} <= records(done.home).keys(), "the second run, which waits for its turn", 120)
    runner, runs = runner_of(server), {run: psutil.Process(records(done.home)[run]["pid"]) for run in (first, second)}
    runner.kill()
    began = time.monotonic()
    wait_for(lambda: "it is restarted" in server.text and runners(server) - {runner}, "another runner", 30)
    wait_for(lambda: state(server, first) != "RUNNING", "the end of the run", 240)
    print(f"the run ended {time.monotonic() - began:.1f} s after the death of its runner")
    assert state(server, first) == "COMPLETED", journal.read_text()[-4000:]
    assert (records(done.home)[first]["status"], records(done.home)[first]["attempt"]) == ("done", 1)
    assert set(shown(server, first).subflows.values()) == {"COMPLETED"}

    third = server.start_run("distill/distill", ladder=str(tiny))
    wait_for(lambda: state(server, third) == "COMPLETED", "a run of the new runner", 120)
    assert runs[second].is_running()
    wait_for(lambda: newest_checkpoint(done.home) >= 20, "a checkpoint of the second run", 120)
    before = newest_checkpoint(done.home)
    server.children = [*psutil.Process(server.process.pid).children(recursive=True), *runs.values()]
    took = server.end()
    print(f"gone in {took:.1f} s, with a run of the dead runner under way")
    assert took < 20
    ended = records(done.home)[second]
    assert ended["status"] == "interrupted"
    assert newest_checkpoint(done.home) > before, "it has written a checkpoint at its last step"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_both_die_at_once_and_nothing_is_left(done, tiny, start: Start, number: int):
    """The runner is dead, and `ladder serve` ends before it has started another, or a moment after."""
    server = start(done, LADDER_ROOTS=str(tiny.parent))
    run = server.start_run("distill/distill", ladder=str(tiny), overrides=ENDLESS)
    wait_for(lambda: newest_checkpoint(done.home) >= 20, "a checkpoint", 120)
    process, runner = psutil.Process(records(done.home)[run]["pid"]), runner_of(server)
    before = newest_checkpoint(done.home)
    runner.kill()
    if number == signal.SIGKILL:
        wait_for(lambda: "it is restarted" in server.text, "another runner", 30)
        time.sleep(1)
    server.children = [*psutil.Process(server.process.pid).children(recursive=True), process]
    took = server.end(number)
    print(f"gone in {took:.1f} s")
    assert records(done.home)[run]["status"] == "interrupted"
    assert newest_checkpoint(done.home) > before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_runs_queued_through_a_deployment_all_end(done, tiny, tmp_path, start: Start):
    server = start(done, "--deployments", offer(tmp_path, more="limit: 2"), LADDER_ROOTS=os.pathsep.join([str(tiny.parent), str(tmp_path)]))
    began, most = time.monotonic(), 0
    overrides = [[f"stages.three.training.steps={20 + n // 2}"] for n in range(10)]  # each twice: one is computed, one reused or waited for
    queued = [server.start_run("distill/distill", ladder=str(tiny), overrides=given) for given in overrides]

    def ended() -> bool:
        nonlocal most
        states = [state(server, run) for run in queued]
        most = max(most, states.count("RUNNING"))
        return set(states) <= {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

    wait_for(ended, "ten runs", 600)
    print(f"ten runs ended in {time.monotonic() - began:.0f} s, at most {most} at once")
    assert {state(server, run) for run in queued} == {"COMPLETED"}, (done.home / "logs" / "runner.log").read_text()[-4000:]
    assert {records(done.home)[run]["status"] for run in queued} == {"done"}
    assert 1 <= most <= 2
