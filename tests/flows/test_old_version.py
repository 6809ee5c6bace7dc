"""A home that version 0.3.0 made is shown, reported and compared, and its results are reused: no fingerprint depends on a module's path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.flows.driver import Cli, actions
from tests.flows.old_home import KILLED, restore

NAMES = ("teacher", "one", "two", "three")
NUMERICS_OF_THEN = ("-c", "from models.base import numerics; numerics.NUMERICS = 3; from flows.cli.app import main; main()")
SHORT = ("teacher.training.steps=2", "stages.one.training.steps=2")


@pytest.fixture
def old(tmp_path: Path, prefect_api: str) -> Cli:
    return Cli(restore(tmp_path / "old"), {"PREFECT_API_URL": prefect_api})


def results(cli: Cli) -> set[Path]:
    """Folders of results; a measurement of speed holds for one machine, so it is not among them."""
    return {path for kind in ("data", "teacher", "stage", "evaluation", "audit") for path in (cli.home / "store" / kind).iterdir()}


def test_its_runs_are_shown_reported_and_compared(old: Cli):
    killed, done = old.json("runs")
    assert (done["status"], done["stages"]) == ("done", "3/3")
    assert (killed["status"], killed["stages"]) == ("interrupted", "2/3")
    shown = old.json("show", done["run"])
    models = [shown["teacher"], *shown["stages"]]
    assert tuple(model["name"] for model in models) == NAMES
    assert all(Path(model["folder"], "model.safetensors").is_file() for model in models)
    assert [stage["fingerprint"][:12] for stage in shown["stages"]] == ["d22653569843", "80ba6f2df0d3", "80332cb20956"]
    assert "three <- two" in old("show", done["run"]).out

    page = Path(shown["report"])
    page.unlink()
    assert old("report", done["run"]).out.strip() == str(page)
    assert all(name in page.read_text() for name in NAMES)
    compared = old.json("compare", done["run"], killed["run"])
    assert [model["same_weights"] for model in compared["models"]][:3] == [True] * 3
    assert compared["settings"] == ["stages.three.training.checkpoint_every: 5 -> 2", "stages.three.training.steps: 20 -> 300"]


@pytest.mark.slow
def test_its_data_is_reused_even_with_other_numerics(old: Cli):
    before, ladder = results(old), old.home.parent / "tiny.yaml"
    ladder.write_text(ladder.read_text().partition("  - name: two")[0])
    ran = old("run", ladder, *SHORT)
    assert "data: found in the store" in ran.err
    assert set(actions(ran.err).values()) == {"computed"}
    assert before < results(old)
    assert len(list((old.home / "store" / "data").iterdir())) == 1


@pytest.mark.slow
def test_a_killed_run_is_continued_with_the_numerics_of_now(old: Cli):
    ladder, killed = old.home.parent / "tiny.yaml", old.json("runs")[0]
    continued = old("run", ladder, *KILLED)
    assert f"continuing the interrupted run {killed['run']}" in continued.err
    assert "data: found in the store" in continued.err
    assert actions(continued.err) == dict.fromkeys(NAMES, "computed")
    shown = old.json("show")
    assert (shown["run"], shown["status"]) == (killed["run"], "done")


@pytest.mark.slow
def test_with_the_same_numerics_everything_is_reused(old: Cli):
    then, before = replace(old, program=NUMERICS_OF_THEN), results(old)
    done = old.json("runs")[1]
    again = then("run", old.home.parent / "tiny.yaml")
    assert "data: found in the store" in again.err
    assert actions(again.err) == dict.fromkeys(NAMES, "reused")
    assert {stage["reused_from"] for stage in old.json("show")["stages"]} == {done["run"]}
    made = results(old) - before
    assert {path.parent.name for path in made} == {"audit"}, "their intervals are formed in another way since"
    assert results(old) > before
