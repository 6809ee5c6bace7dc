"""Training outlives an outage of Prefect's server, which catches up afterwards."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.driver import Cli, Process, actions, home_with_database, newest_checkpoint, wait_for
from tests.flows.served import PrefectServer

STEPS = 3000
LONG = (f"stages.two.training.steps={STEPS}", "stages.two.training.checkpoint_every=20")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrefectServer]:
    (tmp_path / "prefect").mkdir()
    server = PrefectServer(tmp_path / "prefect")
    try:
        server.start()
        yield server
    finally:
        server.kill()


def begun(cli: Cli, tiny: Path, log: Path) -> Process:
    """A run in the middle of the training of its second stage."""
    process = cli.start_logged(log, "run", tiny, *LONG)
    wait_for(lambda: process.poll() is not None or newest_checkpoint(cli.home) >= 100, "the training of stage two")
    assert process.poll() is None, log.read_text()
    return process


@pytest.mark.slow
def test_away_for_a_minute(server: PrefectServer, tiny, tmp_path, empty_database):
    cli = Cli(home_with_database(tmp_path / "home", empty_database), {"PREFECT_API_URL": server.api})
    log = tmp_path / "run.log"
    process = begun(cli, tiny, log)
    at = newest_checkpoint(cli.home)
    server.kill()
    killed = time.monotonic()
    wait_for(lambda: newest_checkpoint(cli.home) >= at + 200, "the training to go on without Prefect", 60)
    print(f"200 steps were trained in {time.monotonic() - killed:.1f} s of the server's absence")
    time.sleep(max(60 - (time.monotonic() - killed), 0))
    server.start()
    back = time.monotonic()
    print(f"the server was away for {back - killed:.0f} s")
    assert process.wait(300) == 0, log.read_text()
    print(f"the run ended {time.monotonic() - back:.0f} s after its return")
    said = log.read_text()
    assert "Traceback" not in said
    assert "Error logging to API" not in said
    assert said.count("does not answer") <= 2, said

    shown = cli.json("show")
    assert shown["status"] == "done"
    run = shown["prefect_run_id"]
    own = server.found("flow_runs", flow_runs={"id": {"any_": [run]}})
    subflows = server.found("flow_runs", flow_runs={"parent_flow_run_id": {"any_": [run]}})
    assert [flow_run["state_type"] for flow_run in (*own, *subflows)] == ["COMPLETED"] * 4
    ids = [run, *(flow_run["id"] for flow_run in subflows)]

    def open_tasks() -> list[str]:
        tasks = server.found("task_runs", task_runs={"flow_run_id": {"any_": ids}})
        return [task["name"] for task in tasks if task["state_type"] != "COMPLETED"]

    wait_for(lambda: not open_tasks(), f"the states of the tasks {open_tasks()}", 20)
    progress = {a["key"]: a["data"] for a in server.found("artifacts", artifacts={"type": {"any_": ["progress"]}})}
    assert progress == {"progress-teacher": 100, "progress-one": 100, "progress-two": 100, "progress-three": 100}
    logs = [line["message"] for line in server.found("logs", logs={"flow_run_id": {"any_": ids}}, sort="TIMESTAMP_ASC", limit=200)]
    lines = [line for line in logs if line.startswith("two: step ")]
    assert len(lines) == said.count(" two: step "), "every line of the training is in Prefect's logs"
    assert lines[-1].startswith(f"two: step {STEPS}/{STEPS}")


@pytest.mark.slow
def test_interrupted_while_it_is_away(server: PrefectServer, tiny, tmp_path, empty_database):
    cli = Cli(home_with_database(tmp_path / "home", empty_database), {"PREFECT_API_URL": server.api})
    log = tmp_path / "run.log"
    process = begun(cli, tiny, log)
    server.kill()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    took = time.monotonic() - began
    print(f"Ctrl-C without a server: ended in {took:.1f} s")
    assert took < 15
    assert "Traceback" not in log.read_text()
    assert cli.json("show")["status"] == "interrupted"


@pytest.mark.slow
def test_away_for_good(server: PrefectServer, tiny, tmp_path, empty_database):
    home = home_with_database(tmp_path / "home", empty_database)
    cli = Cli(home, {"PREFECT_API_URL": server.api, "PREFECT_CLIENT_MAX_RETRIES": "2"})
    log = tmp_path / "run.log"
    process = begun(cli, tiny, log)
    server.kill()
    killed = time.monotonic()
    wait_for(lambda: f"two: step {STEPS}/{STEPS}" in log.read_text() or process.poll() is not None, "the end of the training")
    trained = time.monotonic()
    assert process.wait(120) == 1, log.read_text()
    took = time.monotonic() - trained
    print(f"killed; trained on for {trained - killed:.0f} s; ended {took:.1f} s after the training")
    assert took < 45, "8 s of patience, and the writing of the record"
    said = log.read_text()
    assert "EventsWorker" not in said
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert f"Prefect's server {server.api} has not answered for 8 s. Finished models stay in the store" in errors[0]
    shown = cli.json("show")
    assert (shown["status"], shown["error"]) == ("failed", errors[0].removeprefix("error: "))

    embedded = Cli(home)
    again = embedded("run", tiny, *LONG)
    assert actions(again.err) == {"teacher": "reused", "one": "reused", "two": "reused", "three": "computed"}

    server.start()
    cli("run", tiny, *LONG)
    stale = server.found("flow_runs", flow_runs={"id": {"any_": [shown["prefect_run_id"]]}})
    assert stale[0]["state_type"] == "FAILED", "what its server could not be told is told when it is back"
