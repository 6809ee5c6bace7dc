"""Runs, reports, comparisons and cleaning without MLflow: nothing imports it, and what needs it is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.flows.driver import Cli, actions
from tests.flows.fork_server import IMPORTED

RECORDED = '{source: checkpoint, path: "models:/digits/1"}'


@pytest.fixture
def untracked(tmp_path: Path, prefect_api: str) -> Cli:
    """`ladder` in a home that is not there yet, with MLflow off."""
    return Cli(tmp_path / "home", {"PREFECT_API_URL": prefect_api, "MLFLOW_TRACKING_URI": "none"})


@pytest.mark.slow
def test_a_whole_run_without_mlflow(untracked: Cli, undisturbed: Cli, tiny: Path) -> None:
    if "LADDER_TESTS_START_ALL" in os.environ:
        pytest.skip("the imports of a command are noted by the fork server, which LADDER_TESTS_START_ALL leaves out; without it this runs")
    imported = untracked.home.parent / "imported"
    untracked.env[IMPORTED] = str(imported)
    done = untracked("run", tiny)
    assert imported.read_text() == "prefect\n"
    assert done.err.count("MLflow is off (MLFLOW_TRACKING_URI=none)") == 1
    assert "MLflow" not in done.out
    assert untracked.hashes() == undisturbed.hashes()

    shown = untracked.json("show")
    models = [shown["teacher"], *shown["stages"]]
    assert [shown["mlflow_uri"], shown["mlflow_run_id"], *(model["mlflow_run_id"] for model in models)] == [None] * 6
    assert (shown["status"], shown["unrecorded"]) == ("done", [])
    assert "MLflow run" not in Path(shown["report"]).read_text()
    assert "off" in {check["name"]: check["found"] for check in untracked.json("doctor")}["MLflow"]
    assert not (untracked.home / "mlflow").exists()

    del untracked.env["MLFLOW_TRACKING_URI"]
    more = untracked("run", tiny, "tracking=off", "stages.three.training.steps=25")
    assert more.err.count("MLflow is off (tracking: off)") == 1
    assert actions(more.err) == dict.fromkeys(("teacher", "one", "two"), "reused") | {"three": "computed"}
    second = untracked.json("show")
    compared = untracked.json("compare", shown["run"], second["run"])
    assert compared["settings"] == ["stages.three.training.steps: 20 -> 25", "tracking: mlflow -> off"]
    untracked("report", shown["run"])
    assert "mlflow" not in imported.read_text()
    assert not (untracked.home / "mlflow").exists()
    cleaned = untracked.json("clean", "--older-than=0m")
    assert {piece["name"] for piece in cleaned["freed"] if piece["kind"] == "run"} == {shown["run"], second["run"]}
    assert not (untracked.home / "mlflow").exists()


def test_a_recorded_teacher_needs_mlflow(untracked: Cli, tiny: Path) -> None:
    refused = untracked("run", tiny, f"teacher={RECORDED}", code=2)
    assert "teacher.path: got 'models:/digits/1'" in refused.err
    assert "as MLflow is off (MLFLOW_TRACKING_URI=none)" in refused.err
    refused = untracked("run", tiny, f"teacher={RECORDED}", "tracking=off", code=2)
    assert "tracking: got 'off'; allowed: mlflow, since teacher.path is 'models:/digits/1'" in refused.err


@pytest.mark.slow
def test_recorded_runs_are_looked_at_and_reused_but_not_cleaned(finished: Cli, tiny: Path) -> None:
    recorded = finished.json("show")
    finished.env["MLFLOW_TRACKING_URI"] = "none"
    assert finished.json("show") == recorded
    again = finished("run", tiny)
    assert set(actions(again.err).values()) == {"reused"}
    refused = finished("clean", "--older-than=0m", code=2)
    assert "MLFLOW_TRACKING_URI: got 'none'" in refused.err
    cleaned = finished.json("clean", "--older-than=0m", "--no-keep-promoted", "--dry-run")
    assert cleaned["notes"] == [f"the record of {recorded['run']} in MLflow at {recorded['mlflow_uri']} stays: MLflow is off"]
