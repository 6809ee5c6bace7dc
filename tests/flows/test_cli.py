"""The command line as people and scripts meet it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conf.loading.load import SHIPPED, load
from tests.flows.driver import Cli, clean_environment

MODEL = {"name", "fingerprint", "parameters", "reused", "steps", "seconds", "folder", "weights_sha256", "metrics", "mlflow_run_id"}
STAGE = MODEL | {"retention", "gate"}


def test_help_takes_less_than_a_second():
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "flows.cli.app", "--help"], env=clean_environment(), capture_output=True, text=True)
        seconds.append(time.perf_counter() - began)
        assert done.returncode == 0
        assert all(command in done.stdout for command in ("run", "plan", "list", "explain", "runs", "show", "doctor"))
    assert min(seconds) < 1.0


def test_importing_the_command_line_imports_nothing_heavy():
    code = "import sys, flows.cli.app; print(sorted({'torch', 'prefect', 'mlflow', 'transformers', 'datasets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_shipped_ladder_loads():
    paths = sorted(SHIPPED.glob("*.yaml"))
    assert [path.stem for path in paths] == ["digits", "llama-1b", "python-stdlib", "smollm2"]
    assert [load(path.stem).ladder.name for path in paths] == [path.stem for path in paths]


def test_list_names_every_shipped_ladder(bare):
    assert [row["name"] for row in bare.json("list")] == ["digits", "llama-1b", "python-stdlib", "smollm2"]
    assert "llama-1b" in bare("list").out


def test_explain_gives_meaning_unit_and_bounds(bare):
    said = bare("explain", "stages.objective.alpha").out
    assert "Weight of the teacher" in said
    assert "fraction" in said
    assert "did you mean" in bare("explain", "stages.objectve", code=2).err.lower()


def test_show_promises_its_names(undisturbed):
    shown = undisturbed.json("show")
    assert {"run", "ladder", "status", "teacher", "stages"} <= set(shown)
    assert set(shown["teacher"]) >= MODEL
    assert [stage["name"] for stage in shown["stages"]] == ["one", "two", "three"]
    for stage in shown["stages"]:
        assert set(stage) >= STAGE
        assert set(stage["retention"]) == {"parent", "root"}
        assert Path(stage["folder"], "model.safetensors").is_file()
    assert (shown["ladder"], shown["status"]) == ("tiny", "done")
    assert [stage["steps"] for stage in shown["stages"]] == [20, 120, 20]
    assert undisturbed.json("show", shown["run"]) == shown
    said = undisturbed("show").out
    assert all(name in said for name in ("teacher", "one", "two", "three", "report.html"))


def test_show_without_runs_and_of_an_unknown_run(bare, undisturbed):
    assert "LADDER_HOME" in bare("show", code=2).err
    assert bare("runs").out.startswith("no runs yet")
    assert bare.json("runs") == []
    assert "RUN: got 'tiny-1'" in undisturbed("show", "tiny-1", code=2).err


def test_runs_shows_every_run(undisturbed):
    rows = undisturbed.json("runs")
    assert [(row["ladder"], row["status"], row["stages"]) for row in rows] == [("tiny", "done", "3/3")]
    assert rows[0]["run"] in undisturbed("runs").out


@pytest.mark.slow
def test_plan_tells_what_a_run_would_do(bare, undisturbed, tiny):
    before = bare.json("plan", tiny)
    assert [model["action"] for model in (before["teacher"], *before["stages"])] == ["compute"] * 4
    assert not bare.home.exists(), "a plan changes nothing"
    after = undisturbed.json("plan", tiny)
    assert [model["action"] for model in (after["teacher"], *after["stages"])] == ["reuse"] * 4
    shown = undisturbed.json("show")
    assert [model["parameters"] for model in after["stages"]] == [stage["parameters"] for stage in shown["stages"]]
    assert [model["fingerprint"] for model in after["stages"]] == [stage["fingerprint"] for stage in shown["stages"]]
    assert all(model["ratio"] > 1 for model in after["stages"])
    said = undisturbed("plan", tiny, "stages.two.training.learning_rate=0.001").out
    assert "two: training.learning_rate: 0.003 -> 0.001" in said


def test_plan_of_the_real_ladder_needs_no_checkpoint(bare):
    planned = bare.json("plan", "llama-1b")
    sizes = [planned["teacher"]["parameters"], *(stage["parameters"] for stage in planned["stages"])]
    for size, named in zip(sizes[1:], (300e6, 100e6, 30e6), strict=True):
        assert size == pytest.approx(named, rel=0.02)


def test_doctor_examines_everything(undisturbed):
    checks = {check["name"]: check for check in json.loads(undisturbed("doctor", "--json", code=None).out)}
    assert list(checks) == ["Python", "torch", "store", "disk", "Prefect", "MLflow"]
    assert all(check["ok"] for name, check in checks.items() if name != "disk"), checks
    assert undisturbed.env["PREFECT_API_URL"] in checks["Prefect"]["found"]


def test_doctor_says_what_to_do_about_a_server_that_is_gone(undisturbed):
    lost = Cli(undisturbed.home, {"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    said = lost("doctor", code=1).out
    assert "FAIL  Prefect" in said
    assert "unset PREFECT_API_URL" in said
