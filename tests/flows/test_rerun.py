"""A run repeated with one parameter changed; one stage from named teachers."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from tests.flows.driver import actions, ask_prefect, clean_environment, wait_for

ALL_REUSED = dict.fromkeys(("teacher", "one", "two", "three"), "reused")


def flow_run(cli, shown: dict) -> dict:
    return ask_prefect("GET", f"{cli.env['PREFECT_API_URL']}/flow_runs/{shown['prefect_run_id']}").raise_for_status().json()


@pytest.mark.slow
def test_a_rerun_with_one_change_computes_what_it_must_and_says_what_it_repeats(finished, undisturbed):
    first = finished.json("show")
    named = ("--name", "sixty", "--note", "more steps for two", "--by", "ann")
    changed = finished("rerun", first["run"], "stages.two.training.steps=60", "--start-at", "two", *named)
    assert actions(changed.err) == ALL_REUSED | {"two": "computed", "three": "computed"}
    shown = finished.json("show")
    assert shown["repeats"] == first["run"]
    run = flow_run(finished, shown)
    assert run["name"] == f"{shown['run']}, repeats {first['run']}"
    tags = {"ladder:tiny", f"repeats:{first['run']}", "quality:not asked", "by:ann", "override:stages.two.training.steps=60"}
    assert tags <= set(run["tags"])
    assert (shown["run"], shown["note"], shown["by"]) == ("sixty", "more steps for two", "ann")
    with closing(sqlite3.connect(finished.home / "mlflow" / "mlflow.db")) as mlflow:
        query = "select run_uuid, value from tags where key = 'mlflow.user'"
        users = dict(mlflow.execute(query))
    computed = [stage["mlflow_run_id"] for stage in shown["stages"][1:]]
    assert {users[run_id] for run_id in (shown["mlflow_run_id"], *computed)} == {"ann"}
    listed = finished("runs", "--ladder", "tiny", "--limit", "1").out
    assert "sixty" in listed
    assert "stages.two.training.steps=60; --start-at two; note: more steps for two" in listed
    assert f"This run repeats {first['run']}." in Path(shown["report"]).read_text()
    stages = {stage["name"]: stage["prefect_run_id"] for stage in shown["stages"]}
    found = ask_prefect(
        "POST",
        f"{finished.env['PREFECT_API_URL']}/flow_runs/filter",
        json={"flow_runs": {"tags": {"all_": ["ladder:tiny", "stage:two"]}, "id": {"any_": list(stages.values())}}},
    ).json()
    assert [run["id"] for run in found] == [stages["two"]]
    # The tasks within have none: for each of them Prefect would ask its server for a place in the queue of the tag.
    within = {"flow_runs": {"id": {"any_": list(stages.values())}}}
    tasks = wait_for(lambda: ask_prefect("POST", f"{finished.env['PREFECT_API_URL']}/task_runs/filter", json=within).json(), "tasks")
    assert {tag for task in tasks for tag in task["tags"]} == set()

    # The change is part of the run, so that repeating the repetition needs no change at all.
    again = finished("rerun", shown["run"])
    assert actions(again.err) == ALL_REUSED
    assert finished.json("show")["overrides"] == ["stages.two.training.steps=60"]


@pytest.mark.slow
def test_a_seed_is_a_parameter(finished, tiny):
    ran = finished("run", tiny, "--seed", "7")
    assert actions(ran.err)["teacher"] == "computed"
    assert finished.json("show")["overrides"] == ["seed=7"]
    assert "seed: got -1; allowed: " in finished("run", tiny, "seed=-1", code=2).err


def test_a_run_that_does_not_exist_is_refused(finished):
    assert "RUN: got 'nothing'" in finished("rerun", "nothing", code=2).err


def call(cli, code: str) -> subprocess.CompletedProcess[str]:
    """Run a piece of Python as a script of the user's would."""
    env = clean_environment(LADDER_HOME=str(cli.home), **cli.env)
    before = "from conf.home import home\nfrom flows.serving.environment import prepare_environment\nprepare_environment(home())\n"
    return subprocess.run([sys.executable, "-c", before + code], env=env, cwd=cli.home.parent, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_one_stage_from_named_teachers(finished, tiny, undisturbed):
    code = f"from flows.one_stage import one_stage\none_stage({str(tiny)!r}, 'three', TEACHERS)"
    same = call(finished, code.replace("TEACHERS", "()"))
    assert same.returncode == 0, same.stderr
    shown = finished.json("show")
    assert [stage["name"] for stage in (shown["teacher"], *shown["stages"])] == ["teacher", "one", "two", "three"]
    assert all(stage["reused"] for stage in (shown["teacher"], *shown["stages"]))

    skipping = call(finished, code.replace("TEACHERS", "('one', 'teacher')"))
    assert skipping.returncode == 0, skipping.stderr
    shown = finished.json("show")
    assert [stage["name"] for stage in shown["stages"]] == ["one", "three"]
    assert shown["stages"][1]["teachers"] == ["one"]
    assert not shown["stages"][1]["reused"]
    assert shown["stages"][1]["retention"]["root"] is not None

    first = shown
    again = finished("rerun", first["run"])
    shown = finished.json("show")
    assert actions(again.err) == {"three": "reused"}
    assert ([stage["name"] for stage in shown["stages"]], shown["repeats"]) == (["one", "three"], first["run"])
    changed = finished("rerun", first["run"], "stages.three.training.steps=7")
    assert actions(changed.err) == {"three": "computed"}
    assert finished.json("show")["stages"][1]["teachers"] == ["one"]
    assert (
        f"--start-at: got 'three'; allowed: nothing: {first['run']} made the one stage three"
        in finished("rerun", first["run"], "--start-at", "three", code=2).err
    )

    wrong = call(finished, code.replace("TEACHERS", "('oen',)"))
    assert wrong.returncode != 0
    assert "teachers: got 'oen'; allowed: a finished model of tiny" in wrong.stderr


@pytest.mark.slow
def test_a_ladder_that_is_given_in_full(finished, tiny):
    path = finished.home.parent / "whole.yaml"
    path.write_text(Path(tiny).read_text())
    code = (
        "from conf.loading.load import load\nfrom flows.distill import distill\nfrom flows.parameters import beside_form\n"
        f"with beside_form(inline_ladder=load({str(path)!r}).ladder):\n    distill(overrides=['stages.three.training.steps=25'])"
    )
    ran = call(finished, code)
    assert ran.returncode == 0, ran.stderr
    shown = finished.json("show")
    assert [stage["reused"] for stage in shown["stages"]] == [True, True, False]
    path.unlink()
    again = finished("rerun", shown["run"])
    assert actions(again.err) == ALL_REUSED
    assert yaml.safe_load((Path(shown["folder"]) / "ladder.yaml").read_text())["stages"][2]["training"]["steps"] == 25
