"""A run killed before Prefect, MLflow or its own record knows of it leaves nothing open."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests.flows.driver import FlowRun, ask_prefect, clean_environment, run_python
from tests.flows.test_crash import REAP, reap

LAUNCH = """
import os, signal, sys
from conf.home import home
from flows.serving.environment import prepare_environment
prepare_environment(home())
import prefect.flow_engine
from prefect import flow
from flows.cli.launch import run_here

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

@flow(name="distill", persist_result=False)
def distill(moment="in the flow"):
    if moment == "in the flow":
        die()

if sys.argv[1] == "created":
    prefect.flow_engine.run_flow = die
run_here(distill, sys.argv[1])
"""


def test_a_run_killed_before_it_has_a_record_is_crashed_in_prefect(cli):
    env = clean_environment(LADDER_HOME=str(cli.home), **cli.env)
    locks: dict[str, set[str]] = {}
    for moment in ("created", "in the flow", "no"):
        ended = run_python(LAUNCH, moment, env=env)
        assert ended.code == (0 if moment == "no" else -signal.SIGKILL), ended.err
        known = {path.name for path in cli.home.glob("locks/launch-*")}
        locks[moment] = known - set().union(*locks.values())
    assert locks.pop("no") == set(), "a run that ends well leaves nothing"

    def states() -> list[str]:
        keys = [name.removeprefix("launch-").removesuffix(".lock") for names in locks.values() for name in names]
        body = {"flow_runs": {"idempotency_key": {"any_": keys}}, "sort": "START_TIME_ASC"}
        found = ask_prefect("POST", f"{cli.env['PREFECT_API_URL']}/flow_runs/filter", json=body).raise_for_status().json()
        return sorted(run["state_type"] for run in found)

    assert states() == ["PENDING", "RUNNING"]
    assert run_python(REAP, env=env).code == 0
    assert states() == ["CRASHED", "CRASHED"]
    assert list(cli.home.glob("locks/launch-*")) == []


KILLED_AT_OPENING = """
import os, signal, sys
from conf.home import home
from flows.serving.environment import prepare_environment
prepare_environment(home())
from mlflow import MlflowClient
create = MlflowClient.create_run
def create_and_die(*args, **kwargs):
    create(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
MlflowClient.create_run = create_and_die
from flows.cli.app import main
sys.argv = ["ladder", "run", sys.argv[1]]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("by", ["the reaper", "the next run"])
def test_a_run_killed_while_it_opens_in_mlflow_is_closed(finished, tiny, by: str):
    """Killed in the call that makes MLflow's run, whose id therefore nobody has written down."""
    from mlflow import MlflowClient

    def in_mlflow() -> dict[str, Any]:
        found = client.search_runs(["1"], "tags.`ladder.run` != ''")
        return {run.data.tags["ladder.run"]: run for run in found}

    first = finished.json("show")
    env = clean_environment(LADDER_HOME=str(finished.home), **finished.env)
    killed = run_python(KILLED_AT_OPENING, tiny, env=env)
    assert killed.code == -signal.SIGKILL, killed.err
    (path,) = (path for path in finished.home.glob("runs/*/record.json") if path.parent.name != first["run"])
    record = json.loads(path.read_text())
    client = MlflowClient(record["mlflow_uri"])
    assert (record["status"], record["mlflow_run_id"]) == ("running", None), "the record was on disk before MLflow's run"
    assert in_mlflow()[record["run"]].info.status == "RUNNING"
    in_prefect = FlowRun(finished.env["PREFECT_API_URL"], record["prefect_run_id"])
    assert in_prefect.state == "RUNNING"

    if by == "the reaper":
        assert reap(finished)["dead"] == [record["run"]]
        assert json.loads(path.read_text())["mlflow_run_id"] == in_mlflow()[record["run"]].info.run_id
        assert in_mlflow()[record["run"]].info.status == "KILLED"
        assert in_prefect.state == "CRASHED"
    finished("run", tiny)
    assert in_prefect.state == "CRASHED"
    shown = finished.json("show")
    assert (shown["run"], shown["status"]) == (record["run"], "done"), "the same command continues the run"
    runs = in_mlflow()
    assert {name: run.info.status for name, run in runs.items()} == {first["run"]: "FINISHED", record["run"]: "FINISHED"}
    assert runs[record["run"]].info.run_id == shown["mlflow_run_id"]
    assert runs[record["run"]].data.params.keys() == runs[first["run"]].data.params.keys(), "what the killed process did not log"
    assert client.search_runs(["1"], "attributes.status = 'RUNNING'") == []
