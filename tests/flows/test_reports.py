"""Reports, comparisons and model cards of real runs, as commands and as flows."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.flows.driver import Cli, ask_prefect, clean_environment, run_python


@pytest.fixture(scope="module")
def two(undisturbed, tiny, tmp_path_factory):
    """A home with two runs, of which the second has another last stage; with their names, the first one first."""
    home = tmp_path_factory.mktemp("two") / "home"
    shutil.copytree(undisturbed.home, home)
    cli = Cli(home, dict(undisturbed.env))
    cli("run", tiny, "stages.three.objective.alpha=0.2")
    return cli, [run["run"] for run in reversed(cli.json("runs"))]


@pytest.mark.slow
def test_a_report_is_written_again(two):
    cli, names = two
    page = cli.home / "runs" / names[0] / "report.html"
    before = page.read_text()
    page.unlink()
    assert cli("report", names[0]).out.strip() == str(page)
    assert page.read_text() == before, "the same record gives the same page"
    assert cli("report").out.strip() == str(cli.home / "runs" / names[1] / "report.html"), "the last one"


def test_a_run_that_died_gets_its_report(finished):
    name = finished.json("runs")[0]["run"]
    path = finished.home / "runs" / name / "record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "status": "running", "stages": record["stages"][:1], "finished": None}))
    page = Path(finished("report", name).out.strip()).read_text()
    assert "The run was interrupted: 1 of 3 stages is finished, and the report shows what there is." in page
    assert "Why it was interrupted" in page


@pytest.mark.parametrize(
    "command", [("report", "nix"), ("compare", "nix", "nix"), ("compare", "FIRST", "nix"), ("compare", "FIRST", "FIRST")]
)
def test_an_unknown_run_is_refused(finished, command: tuple[str, ...]):
    name = finished.json("runs")[0]["run"]
    refused = finished(*(name if word == "FIRST" else word for word in command), code=2)
    got = name if command[-1] == "FIRST" else "nix"
    allowed = "two different runs" if command[-1] == "FIRST" else "a run of this home"
    assert refused.err.startswith(f"error: RUN: got {got!r}; allowed: {allowed}. ")
    assert refused.err.count("\n") == 1


@pytest.mark.slow
def test_two_runs_are_put_side_by_side(two):
    cli, names = two
    told = cli("compare", *names).out
    assert max(map(len, told.partition("Page: ")[0].splitlines())) <= 80
    assert "stages.three.objective.alpha.start: 0.7 -> 0.2" in told
    for name in ("teacher", "one", "two"):
        assert f"{name} (same weights)" in told
    page = Path(re.findall(r"^Page: (.+)$", told, re.MULTILINE)[0])
    assert page == cli.home / "runs" / names[1] / f"compare-{names[0]}-{names[1]}.html"
    found = cli.json("compare", *names)
    assert [model["same_weights"] for model in found["models"]] == [True, True, True, False]
    assert found["settings"] == ["stages.three.objective.alpha.start: 0.7 -> 0.2"]
    assert found["page"] == str(page)


@pytest.mark.slow
def test_both_are_flows_too(two):
    cli, names = two
    script = f"from flows.reports import report, compare; print(report()); print(compare({names[0]!r}, {names[1]!r}))"
    env = clean_environment(LADDER_HOME=str(cli.home), **cli.env)
    done = run_python(script, env=env)
    assert done.code == 0, done.err
    first, second = done.out.split()
    assert first == str(cli.home / "runs" / names[1] / "report.html")
    assert Path(second).name == f"compare-{names[0]}-{names[1]}.html"
    url, filter_ = f"{cli.env['PREFECT_API_URL']}/artifacts/filter", {"artifacts": {"key": {"any_": ["ladder-comparison"]}}}
    made = ask_prefect("POST", url, json=filter_).raise_for_status().json()
    assert "stages.three.objective.alpha.start: 0.7 -> 0.2" in made[0]["data"]


def test_every_student_has_a_card_that_harms_nothing(undisturbed):
    from huggingface_hub import ModelCard, ModelCardData
    from mlflow import MlflowClient

    from conf.home import Home
    from tasks.store.store import Store

    shown, client = undisturbed.json("show"), MlflowClient(f"sqlite:///{undisturbed.home}/mlflow/mlflow.db")
    above = shown["teacher"]
    for model in shown["stages"]:
        folder = Path(model["folder"])
        data = ModelCard.load(folder / "README.md").data
        assert isinstance(data, ModelCardData)
        assert data.base_model == f"tiny-{above['name']}-{above['fingerprint'][:12]}"
        assert {r.metric_type: r.metric_value for r in data.eval_results or []}["accuracy"] == pytest.approx(
            model["metrics"]["accuracy"], abs=1e-6
        )
        (output,) = client.get_run(model["mlflow_run_id"]).outputs.model_outputs
        assert "README.md" in {item.path for item in client.list_logged_model_artifacts(output.model_id)}
        assert "README.md" not in json.loads((folder / "manifest.json").read_text())["files"]
        assert Store(Home(undisturbed.home)).find("stage", model["fingerprint"]), "verified, hashes and all"
        above = model
    assert not (Path(shown["teacher"]["folder"]) / "README.md").exists(), "the root is nobody's student"


def test_the_cards_code_loads_the_model(undisturbed):
    folder = undisturbed.json("show")["stages"][-1]["folder"]
    code = re.findall(r"```python\n(.*?)```", (Path(folder) / "README.md").read_text(), re.DOTALL)[0].replace("FOLDER", folder)
    env = clean_environment(HF_HUB_OFFLINE="1")
    said = run_python(code, env=env)
    assert said.code == 0, said.err
    assert said.out.strip()
