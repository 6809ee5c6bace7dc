"""`ladder serve` with MLflow off: Prefect's pages, a run through a deployment, an end that leaves nothing."""

from __future__ import annotations

from pathlib import Path

import httpx
import psutil
import pytest

from tests.flows.driver import Cli, actions, newest_checkpoint, wait_for
from tests.flows.served import Start, offer


@pytest.fixture
def untracked(bare: Cli) -> Cli:
    """`ladder` in a home that is not there yet, with MLflow off."""
    return Cli(bare.home, {"MLFLOW_TRACKING_URI": "none"})


@pytest.mark.slow
def test_prefect_alone_is_served_until_ctrl_c(untracked: Cli, start: Start) -> None:
    server = start(untracked)
    assert server.where["mlflow_ui"] is None
    assert "MLflow   off: MLFLOW_TRACKING_URI=none" in server.text
    assert "MLflow's server" not in server.text
    assert len(server.children) == 2, "Prefect's server and the runner"
    for path in ("", "/dashboard", "/deployments"):
        page = httpx.get(server.where["prefect_ui"] + path, trust_env=False, follow_redirects=True, headers={"Accept": "text/html"})
        assert "<title>Prefect" in page.raise_for_status().text
    assert server.deployment("distill/distill")["status"] == "READY"
    assert "MLflow   off" in untracked("serve").out, "a second one prints what the first one serves"
    assert "off" in {check["name"]: check["found"] for check in untracked.json("doctor")}["MLflow"]

    assert server.end() < 15
    assert "ended; nothing is left running" in server.text
    assert not (untracked.home / "mlflow").exists()


@pytest.mark.slow
def test_a_deployment_runs_a_ladder_and_ctrl_c_interrupts_it(untracked: Cli, tiny: Path, tmp_path: Path, start: Start) -> None:
    server = start(untracked, "--deployments", offer(tmp_path), LADDER_ROOTS=str(tiny.parent))
    run = server.start_run("distill/distill", ladder=str(tiny))
    wait_for(lambda: server.state(run) in ("Completed", "Failed", "Crashed"), "a run through the deployment", 300)
    assert server.state(run) == "Completed", (untracked.home / "logs" / "runner.log").read_text()
    shown = untracked.json("show")
    assert (shown["status"], shown["prefect_run_id"], shown["mlflow_uri"], shown["unrecorded"]) == ("done", run, None, [])
    again = untracked("run", tiny)
    assert set(actions(again.err).values()) == {"reused"}
    assert f"{server.where['prefect_ui']}/runs/flow-run/" in again.out

    run = server.start_run("distill/distill", ladder=str(tiny), overrides=["teacher.training.steps=20000"])
    wait_for(lambda: newest_checkpoint(untracked.home), "a checkpoint of the run", 180)
    server.children = psutil.Process(server.process.pid).children(recursive=True)
    assert server.end() < 20
    shown = untracked.json("show")
    assert (shown["status"], shown["prefect_run_id"]) == ("interrupted", run)
    assert not (untracked.home / "mlflow").exists()
