"""`ladder run` with route auto: killed among its pilots it goes on, and its decision is in its record, its report and MLflow."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.flows.driver import Cli, ask_prefect, half_written, wait_for

ASKED = ("route=auto", "routing={share: 0.5, routes: [as-written, direct, root-cached], least_steps: 3}")


def decision_of(cli: Cli) -> dict[str, Any]:
    return json.loads((cli.home / "runs" / cli.json("show")["run"] / "record.json").read_text())["route"]


def models_of(cli: Cli) -> list[dict[str, Any]]:
    return json.loads((cli.home / "runs" / cli.json("show")["run"] / "record.json").read_text())["stages"]


@pytest.mark.slow
def test_a_run_killed_among_its_pilots_goes_on_to_the_same_choice_and_weights(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    log = tmp_path / "killed.log"
    process = cli.start_logged(log, "run", tiny, *ASKED)
    wait_for(lambda: "two-root-cached-1: computed" in log.read_text() or process.poll() is not None, "the second pilot")
    assert process.poll() is None, "the run ended before it was killed"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    killed = cli.json("show")
    assert (killed["status"], killed["stages"]) == ("interrupted", [])

    again = cli("run", tiny, *ASKED)
    assert "three-direct-1: found in the store" in again.err
    shown, decision = cli.json("show"), decision_of(cli)
    assert (shown["run"], shown["mlflow_run_id"], shown["status"]) == (killed["run"], killed["mlflow_run_id"], "done")
    assert decision["winner"] in ("as-written", "direct", "root-cached")
    assert decision["spent"] + decision["final"] <= decision["price"]
    assert sum(model["flops"] for model in shown["stages"]) <= decision["final"] * (1 + 1e-9)
    assert half_written(cli.home) == []
    _in_mlflow(shown, decision)
    _in_prefect(cli, decision)
    report = Path(shown["report"]).read_text()
    assert "Choice of the route" in report
    assert decision["reason"] in report
    assert "with the weights that its last pilot ended with" in report
    assert len(models_of(cli)[-1]["identity"]["begins"]) == 64  # of its weights

    hashes = cli.hashes()
    third = cli("run", tiny, *ASKED, "--fresh")
    assert "found in the store" not in re.sub(r"(data:|signals of) .*", "", third.err)
    assert cli.hashes() == hashes
    assert decision_of(cli)["winner"] == decision["winner"]
    assert [each["standings"] for each in decision_of(cli)["rounds"]] == [each["standings"] for each in decision["rounds"]]


def _in_mlflow(shown: dict[str, Any], decision: dict[str, Any]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(shown["mlflow_uri"])
    run = client.get_run(shown["mlflow_run_id"])
    assert run.data.tags["ladder.route"] == decision["winner"]
    children = client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'")
    pilots = {child.data.tags["ladder.pilot"]: child.info.status for child in children if "ladder.pilot" in child.data.tags}
    assert pilots == dict.fromkeys(("as-written", "direct", "root-cached"), "FINISHED")
    scores = {standing["route"]: standing["score"] for standing in decision["rounds"][0]["standings"]}
    assert {route: client.get_metric_history(run.info.run_id, f"route/{route}")[0].value for route in scores} == scores


def _in_prefect(cli: Cli, decision: dict[str, Any]) -> None:
    asked = {"artifacts": {"key": {"any_": ["ladder-route"]}}, "sort": "CREATED_DESC", "limit": 1}
    (artifact,) = ask_prefect("POST", f"{cli.env['PREFECT_API_URL']}/artifacts/filter", json=asked).raise_for_status().json()
    rows = json.loads(artifact["data"])
    assert [row["route"] for row in rows] == [each["route"] for each in decision["rounds"][-1]["standings"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("route", "stages"),
    [
        ("direct", ["three"]),
        ("direct-cached", ["three"]),
        ("root-cached", ["one", "two", "three"]),
        ("curriculum", ["one", "two", "three"]),
        ("ensemble", ["one", "two", "three"]),
        ("self", ["one", "two", "three", "three-again"]),
        ("best-of-rungs", ["one", "two", "three"]),
    ],
)
def test_a_route_that_is_named_trains_its_stages(route: str, stages: list[str], cli: Cli, tiny: Path) -> None:
    cli("run", tiny, "--route", route, "defaults.training.steps=10", "stages.two.training.steps=10")
    shown = cli.json("show")
    assert (shown["status"], [stage["name"] for stage in shown["stages"]]) == ("done", stages)


def test_a_stage_to_start_at_is_refused_as_pilots_choose_the_stages(cli: Cli, tiny: Path) -> None:
    refused = cli("run", tiny, "route=auto", "--start-at", "two", code=2)
    assert "--start-at: got 'two'; allowed: nothing, with route auto" in refused.err
