"""What a machine that is gone has left open is closed by the next run of the ladder on another one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.flows.driver import Cli, FlowRun, ask_prefect, last_flow_run, newest_checkpoint, wait_for

LONG = ("teacher.training.steps=100000", "compute.at_once=null")


def crash(flow_run: FlowRun) -> None:
    """As Prefect's automation of silent runs does."""
    body = {"state": {"type": "CRASHED", "message": "no heartbeat for 90 seconds"}}
    answer = ask_prefect("POST", f"{flow_run.api}/flow_runs/{flow_run.flow_run}/set_state", json=body)
    assert answer.raise_for_status().json()["status"] == "ACCEPT"


@pytest.mark.slow
def test_the_next_run_on_another_machine_closes_what_was_abandoned(prefect_api: str, empty_database: Path, tiny: Path, tmp_path: Path):
    database = tmp_path / "mlflow.db"
    shutil.copy(empty_database, database)
    env = {"PREFECT_API_URL": prefect_api, "MLFLOW_TRACKING_URI": f"sqlite:///{database}"}
    gone, busy, here = (Cli(tmp_path / name / "home", env) for name in ("gone", "busy", "here"))
    process, _ = (cli.start("run", tiny, *LONG) for cli in (gone, busy))
    for cli in (gone, busy):
        wait_for(lambda cli=cli: newest_checkpoint(cli.home), "a checkpoint")
    ladders = {cli.home: cli.json("show") for cli in (gone, busy)}
    flow_run = last_flow_run(gone)
    process.kill()
    process.wait()
    crash(flow_run)
    here("run", tiny)

    client = MlflowClient(env["MLFLOW_TRACKING_URI"])

    def recorded(home: Path) -> dict[str, str]:
        """States in MLflow of a run and its models."""
        parent = client.get_run(ladders[home]["mlflow_run_id"])
        children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
        return {run.data.tags.get("ladder.stage", "run"): run.info.status for run in (parent, *children)}

    assert recorded(gone.home) == {"run": "KILLED", "teacher": "KILLED"}
    assert recorded(busy.home) == {"run": "RUNNING", "teacher": "RUNNING"}
    assert flow_run.state == "CRASHED"
    assert set(flow_run.tasks.values()) == {"COMPLETED", "CRASHED"}
    assert last_flow_run(busy).state == "RUNNING"
    said = gone("run", tiny, "teacher.training.steps=60", code=None)
    assert said.code == 0, said.err
