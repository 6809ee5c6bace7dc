"""An outage of MLflow: training goes on, the record catches up, gaps are named."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flows.driver import Cli, FlowRun, Process, actions, ask_prefect, clean_environment, wait_for

STEPS = 1500
LONG = (f"stages.one.training.steps={STEPS}", "stages.one.training.checkpoint_every=100")
PASSWORD = "s3cret-of-ann"


class Server:
    """A real MLflow server on a port of its own, that can be killed, halted and started again."""

    def __init__(self, place: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.place = place
        self.address = f"http://127.0.0.1:{self.port}"
        # It asks for no password and takes any, which is all that is needed to look for traces of it.
        self.uri = f"http://ann:{PASSWORD}@127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        store = ("--backend-store-uri", f"sqlite:///{self.place}/mlflow.db", "--artifacts-destination", str(self.place / "artifacts"))
        command = [sys.executable, "-m", "mlflow", "server", *store, "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        env = clean_environment(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
        with (self.place / "server.log").open("a") as log:
            self.process = subprocess.Popen(command, cwd=self.place, env=env, stdout=log, stderr=log, start_new_session=True)
        wait_for(self.answers, f"MLflow's server, see {self.place}/server.log", 120)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.address}/health", timeout=1.0, trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait(10)


@pytest.fixture
def mlflow(tmp_path: Path, empty_database: Path) -> Iterator[Server]:
    place = tmp_path / "mlflow"
    place.mkdir()
    shutil.copy(empty_database, place / "mlflow.db")
    server = Server(place)
    server.start()
    yield server
    with contextlib.suppress(ProcessLookupError):  # the test has killed it
        server.signal(signal.SIGCONT)
        server.signal(signal.SIGKILL)


def client_of(server: Server) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(server.address)


def steps_of(client: Any, run_id: str, metric: str = "train/loss") -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, metric)]


def progress(log: Path) -> int:
    """The last step of stage one that the log tells of."""
    told = re.findall(r"one: step (\d+)/", log.read_text())
    return int(told[-1]) if told else 0


def begin(cli: Cli, server: Server, log: Path, *args: object, **env: str) -> Process:
    cli.env |= {"MLFLOW_TRACKING_URI": server.uri, **env}
    return cli.start_logged(log, "run", *args)


def in_training(log: Path, process: Process) -> None:
    wait_for(lambda: progress(log) or process.poll() is not None, "a step of stage one")
    assert process.poll() is None, log.read_text()


def seconds_of_steps(home: Path) -> list[float]:
    """Seconds from each step of stage one to the next, as their points tell in MLflow: stamped when they were made, not when sent."""
    import sqlite3

    with sqlite3.connect(home) as base:
        rows = base.execute(
            "select m.timestamp from metrics m join tags t on t.run_uuid = m.run_uuid and t.key = 'ladder.stage' and t.value = 'one' "
            "where m.key = 'train/loss' order by m.step"
        ).fetchall()
    stamps = [row[0] / 1000 for row in rows]
    return [later - earlier for earlier, later in pairwise(stamps)]


@pytest.mark.slow
@pytest.mark.parametrize(("down", "up"), [(signal.SIGKILL, None), (signal.SIGSTOP, signal.SIGCONT)], ids=["killed", "hanging"])
def test_a_record_that_is_away_for_a_while_catches_up(cli, tiny, mlflow: Server, tmp_path, down, up):
    log = tmp_path / "run.log"
    process = begin(cli, mlflow, log, tiny, *LONG)
    in_training(log, process)
    mlflow.signal(down)
    gone, before = time.monotonic(), progress(log)
    time.sleep(8)
    during = progress(log)
    mlflow.signal(up) if up else mlflow.start()
    away = time.monotonic() - gone
    assert process.wait(300) == 0, log.read_text()
    said = log.read_text()
    assert "Traceback" not in said
    assert during > before, "training stood still"

    shown = cli.json("show")
    client = client_of(mlflow)
    assert (shown["status"], shown["unrecorded"]) == ("done", []), said
    one = client.get_run(shown["stages"][0]["mlflow_run_id"])
    assert one.info.status == "FINISHED"
    for metric in ("train/loss", "train/kd", "train/tokens_per_second"):
        assert steps_of(client, one.info.run_id, metric) == list(range(1, STEPS + 1)), metric
    slowest = max(seconds_of_steps(mlflow.place / "mlflow.db"))
    print(f"away for {away:.1f} s ({down.name}); slowest step {slowest:.2f} s; {during - before} steps told of meanwhile")
    assert slowest < 5, "a checkpoint waits at most 3 seconds, once"
    assert PASSWORD not in said


@pytest.mark.slow
def test_a_record_that_is_away_for_good_is_made_by_a_rerun(cli, tiny, mlflow: Server, prefect_api, tmp_path):
    log = tmp_path / "run.log"
    process = begin(cli, mlflow, log, tiny, *LONG, LADDER_RECORD_PATIENCE="3")
    in_training(log, process)
    mlflow.signal(signal.SIGKILL)
    gone = time.monotonic()
    assert process.wait(300) == 0, log.read_text()
    print(f"the ladder ended {time.monotonic() - gone:.1f} s after MLflow went away for good")
    said = log.read_text()
    assert "Traceback" not in said
    first = cli.json("show")
    missing = [what.split(": ")[0] for what in first["unrecorded"]]
    models = [f"{name} (curve, figures, model)" for name in ("one", "two", "three")]
    assert (first["status"], missing) == ("done", [*models, "report", "end of the run"])
    assert "MLflow lacks: one (curve" in said
    assert "connection refused" in said
    assert "MLflow lacks one (curve, figures, model): " in cli("show").out

    mlflow.start()
    again = cli("run", tiny, *LONG)
    assert set(actions(again.err).values()) == {"reused"}
    shown, client = cli.json("show"), client_of(mlflow)
    assert shown["unrecorded"] == []
    for stage, steps in zip(shown["stages"], (STEPS, 120, 20), strict=True):
        run = client.get_run(stage["mlflow_run_id"])
        assert (run.info.status, sorted(steps_of(client, run.info.run_id))) == ("FINISHED", list(range(1, steps + 1)))
        assert run.data.metrics["valid/accuracy"] == pytest.approx(stage["metrics"]["accuracy"])
        assert "student/model.safetensors" in {file.path for file in client.list_artifacts(run.info.run_id, "student")}
        assert len(run.outputs.model_outputs) == 1
    runs = client.search_runs([run.info.experiment_id])
    assert "RUNNING" not in {run.info.status for run in runs}, "what the first run could not close is closed by the second"
    assert client.get_run(first["mlflow_run_id"]).info.status == "FINISHED"

    kept = [path for place in ("runs", "store") for path in (cli.home / place).rglob("*") if path.is_file()]
    assert len(kept) > 20
    assert [path for path in kept if PASSWORD.encode() in path.read_bytes()] == []
    assert PASSWORD not in said + again.err + again.out + cli("show").out
    for what in ("artifacts", "logs", "flow_runs", "task_runs"):
        found = ask_prefect("POST", f"{prefect_api}/{what}/filter", json={"limit": 200})
        assert found.status_code == httpx.codes.OK
        assert PASSWORD not in found.text, what


@pytest.mark.slow
def test_the_lines_of_a_training_are_in_prefects_run_logs(cli, mlflow: Server, tiny, tmp_path):
    """With their levels, about one a second at most, and without the password of the server that goes away meanwhile."""
    log = tmp_path / "run.log"
    process = begin(cli, mlflow, log, tiny, "stages.one.training.steps=100000", LADDER_RECORD_PATIENCE="2")
    in_training(log, process)
    mlflow.signal(signal.SIGKILL)
    wait_for(lambda: log.read_text().count("one: step ") >= 4 and "MLflow" in log.read_text(), "more lines", 120)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130, log.read_text()

    prefect = FlowRun(cli.env["PREFECT_API_URL"], cli.json("show")["prefect_run_id"])
    asked = {"logs": {"flow_run_id": {"any_": [prefect.flow_run, *prefect.subflows]}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
    logs = wait_for(lambda: [line for line in prefect.post("logs/filter", asked) if line["name"] == "ladder"], "the lines", 30)
    steps = [line for line in logs if line["message"].startswith("one: step ")]
    assert len(steps) >= 4
    assert all(line["level"] == logging.INFO and line["task_run_id"] for line in steps)
    stamps = [datetime.fromisoformat(line["timestamp"]).timestamp() for line in steps]
    print("seconds from line to line:", [round(later - earlier, 1) for earlier, later in pairwise(stamps)])
    assert min(later - earlier for earlier, later in pairwise(stamps)) > 1
    assert [line for line in logs if line["level"] == logging.WARNING and "MLflow" in line["message"]]
    everything = json.dumps(prefect.post("logs/filter", asked))
    assert "127.0.0.1" in everything, "an address is told"
    assert PASSWORD not in everything + log.read_text()
