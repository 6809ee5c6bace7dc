"""The loop with real servers: drift is found, distilled again, promoted, served; a bad challenger is refused; rolled back.

And a re-distillation that is killed, or whose budget is too small.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import dialects
from benchmarks.loop import CALM, SOUTH, Loop
from tests.flows.conftest import make_once
from tests.flows.driver import Cli, home_with_database, newest_checkpoint, wait_for
from tests.flows.served import Server, Start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

WITHIN = 5  # drifted windows in which the monitor must prove the drop
SLOW = 1800.0  # seconds for what takes minutes on a machine that does much else


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, prefect_api: str, empty_database: Path) -> Path:
    """A folder with the ladder of two dialects, and a home in which its small student is champion."""

    def make(folder: Path) -> None:
        dialects.write(folder)
        cli = Cli(home_with_database(folder / "home", empty_database), {"PREFECT_API_URL": prefect_api})
        cli("run", folder / "dialects.yaml", "--name", "first")
        cli("promote", "first")

    return make_once(tmp_path_factory, "dialects", make)


@pytest.fixture
def loop(promoted: Path, tmp_path: Path) -> Loop:
    """A copy of that folder at the same place in the ladder's eyes: its file is the original's, which nothing writes to."""
    folder = tmp_path / "loop"
    folder.mkdir()
    shutil.copytree(promoted / "home", folder / "home")
    return Loop(folder)


def decisions(home: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((home / "redistill" / "dialects").glob("[0-9]*.json"))]


def ended(server: Server, run: str) -> str:
    """The state of a flow run once it has ended."""
    done = ("Completed", "Failed", "Crashed", "Cancelled", "GateStopped", "Interrupted", "Cached")
    return wait_for(lambda: state if (state := server.state(run)) in done else None, f"flow run {run}", SLOW)


def test_a_drift_is_found_distilled_again_promoted_served_and_shown(loop: Loop, promoted: Path, start: Start) -> None:
    cli = Cli(loop.home)
    roots = f"{promoted}:{loop.folder}"
    server = start(cli, LADDER_ROOTS=roots)
    with loop.served("dialects@champion"):
        calm = [loop.serve_window(number, 0.0) for number in range(CALM)]
        assert {version for _, version in calm} == {"dialects/1"}
        usual = sum(share for share, _ in calm) / CALM
        assert usual > 0.9
        look = server.start_run("monitor/monitor", model="dialects", windows=str(loop.windows))
        assert ended(server, look) == "Completed"
        reports = cli.json("monitor", "dialects", "--history")
        assert len(reports) == CALM
        assert not any(report["trigger"] for report in reports), "nothing happens"
        assert decisions(loop.home) == []

        before = []
        for number in range(CALM, CALM + WITHIN):
            before.append(loop.serve_window(number, SOUTH)[0])
            look = server.start_run("monitor/monitor", model="dialects", windows=str(loop.windows))
            assert ended(server, look) == "Completed"
            if cli.json("monitor", "dialects", "--history")[-1]["trigger"]:
                break
        report = cli.json("monitor", "dialects", "--history")[-1]
        assert report["trigger"], f"not found within {WITHIN} windows"
        assert report["diagnosis"] == "distil again", "the teacher holds"
        assert max(before) < usual - 0.1

        deployment = server.deployment("redistill/redistill")["id"]
        wanted = {"deployments": {"id": {"any_": [deployment]}}}
        [flow_run] = wait_for(lambda: server.ask("POST", "/flow_runs/filter", json=wanted), "the automation", 120)
        assert flow_run["parameters"]["cause"] == report["cause"]
        assert ended(server, flow_run["id"]) == "Completed"
        [decision] = decisions(loop.home)
        assert decision["outcome"] == "promoted", decision["reason"]
        assert (decision["cause"], decision["champion"], decision["by"]) == (report["cause"], "dialects/1", "monitor")
        counts = decision["counts"]
        root = next(model for model in json.loads((loop.home / "runs" / decision["run"] / "record.json").read_text())["stages"])
        assert root["answers_asked"] == counts["transfer"], "the teacher answered what is new alone"
        assert root["answers_copied"] > 0

        wait_for(lambda: loop.ask("/predict", {"inputs": ["scalm1 scalm2"]})["model"] == "dialects/2", "the new champion to answer", 120)
        after, version = loop.serve_window(CALM + WITHIN, SOUTH)
        assert version == "dialects/2"
        assert after > max(before) + 0.1
        assert after > usual - 0.08, "quality has recovered"

        shown = {run["run"]: run for run in cli.json("runs")}
        assert shown[decision["run"]]["by"] == "monitor"
        assert report["cause"] in shown[decision["run"]]["note"]
        look = server.start_run("monitor/monitor", model="dialects", windows=str(loop.windows))
        assert ended(server, look) == "Completed"
        page = (loop.home / "monitoring" / "dialects" / "monitoring.html").read_text()
        assert "promoted" in page
        assert decision["run"] in page

        careless = loop.folder.parent / "careless.yaml"
        careless.write_text((promoted / "dialects.yaml").read_text().replace("teacher: my-teacher", f"teacher: {promoted}/my-teacher"))
        careless.write_text(careless.read_text().replace("[north.csv]", f"[{promoted}/north.csv]"))
        cli("run", careless, "stages.small.training.steps=2", "--name", "careless")
        refused = cli("promote", "careless", "--data", decision["held_out"], code=3)
        assert "worse" in refused.err
        assert champion(cli) == "2"
        cli("rollback", "dialects", "--reason", "to see it")
        assert champion(cli) == "1"
        wait_for(lambda: loop.ask("/predict", {"inputs": ["ncalm1"]})["model"] == "dialects/1", "the earlier champion to answer", 120)
    assert len(decisions(loop.home)) == 1


def champion(cli: Cli) -> str:
    return next(each["version"] for each in cli.json("models", "dialects") if "champion" in each["aliases"])


def windows(loop: Loop) -> Path:
    for number in range(3):
        dialects.write_window(loop.windows, number, 250, SOUTH, 0.6)
    return loop.windows


def test_a_killed_re_distillation_goes_on_and_is_one_run(loop: Loop, prefect_api: str) -> None:
    cli = Cli(loop.home, {"PREFECT_API_URL": prefect_api})
    command = ("redistill", "dialects", "--windows", windows(loop), "--reason", "trial")
    log = loop.folder / "killed.txt"
    process = cli.start_logged(log, *command)
    wait_for(lambda: "half: step" in log.read_text() or newest_checkpoint(loop.home), "a training", SLOW)
    process.kill()
    process.wait(60)
    [decision] = decisions(loop.home)
    assert decision["outcome"] == "running"
    time.sleep(0.5)
    done = cli(*command)
    assert "continuing the interrupted run" in done.err
    [again] = decisions(loop.home)
    assert (again["number"], again["attempts"], again["outcome"]) == (decision["number"], 2, "promoted")
    assert again["run"] == decision["run"]
    assert [run["run"] for run in cli.json("runs")] == [again["run"], "first"]
    told = cli(*command, code=2).err
    assert f"decision {again['number']} was about the same cause" in told
    assert len(cli.json("runs")) == 2, "never two for one cause"


def test_a_budget_that_is_too_small_is_a_reason(loop: Loop, promoted: Path, prefect_api: str) -> None:
    cli = Cli(loop.home, {"PREFECT_API_URL": prefect_api})
    record = loop.home / "runs" / "first" / "record.json"
    held = json.loads(record.read_text())
    small = loop.folder / "dialects.yaml"
    text = (promoted / "dialects.yaml").read_text().replace("mix: 0.5", "mix: 0.5, budget: 1s")
    small.write_text(
        text.replace("teacher: my-teacher", f"teacher: {promoted}/my-teacher").replace("[north.csv]", f"[{promoted}/north.csv]")
    )
    record.write_text(json.dumps(held | {"source": str(small)}))
    told = cli("redistill", "dialects", "--windows", windows(loop), code=2).err
    assert "budget" in told
    [decision] = decisions(loop.home)
    assert decision["outcome"] == "not done"
    assert "budget" in decision["reason"]
    assert [run["run"] for run in cli.json("runs")] == ["first"]
