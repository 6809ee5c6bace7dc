"""The lineage of a run, read back from MLflow and from Prefect."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.flows.driver import ask_prefect

STAGES = ["stage / one <- teacher", "stage / two <- one", "stage / three <- two"]


@pytest.fixture(scope="module")
def shown(undisturbed):
    return undisturbed.json("show")


def test_mlflow_holds_one_tree(shown):
    from mlflow import MlflowClient

    client = MlflowClient(shown["mlflow_uri"])
    parent = client.get_run(shown["mlflow_run_id"])
    assert client.get_experiment(parent.info.experiment_id).name == "tiny"
    found = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    children = {run.data.tags["ladder.stage"]: run for run in found}
    assert sorted(children) == ["one", "teacher", "three", "two"]
    assert {run.info.status for run in (parent, *found)} == {"FINISHED"}
    names = ["teacher", "one", "two", "three"]
    taught_by = {name: children[name].data.tags.get("ladder.teacher_run_id") for name in names}
    assert taught_by == {"teacher": None} | {name: children[above].info.run_id for above, name in pairwise(names)}
    models = {m["name"]: m for m in (shown["teacher"], *shown["stages"])}
    for name, run in children.items():
        assert run.info.run_id == models[name]["mlflow_run_id"]
        assert run.data.tags["ladder.weights_sha256"] == models[name]["weights_sha256"]
        assert run.data.metrics["valid/accuracy"] == pytest.approx(models[name]["metrics"]["accuracy"])
    assert parent.data.tags["prefect.flow_run_id"] == shown["prefect_run_id"]
    assert f"/runs/flow-run/{shown['prefect_run_id']})" in parent.data.tags["mlflow.note.content"], "a link to Prefect's page"
    assert f"[two](#/experiments/{parent.info.experiment_id}/runs/{children['two'].info.run_id}" in parent.data.tags["mlflow.note.content"]
    assert children["two"].data.tags["mlflow.note.content"].startswith("Taught by [one](")
    assert parent.data.metrics["two/accuracy"] == pytest.approx(models["two"]["metrics"]["accuracy"])
    assert not any(name.startswith("last/") for name in parent.data.metrics)
    assert "report.html" in {item.path for item in client.list_artifacts(parent.info.run_id)}


def ask(api: str, what: str, **query) -> list[dict]:
    return ask_prefect("POST", f"{api}/{what}/filter", json=query).raise_for_status().json()


def test_prefect_holds_the_flow_its_stages_and_their_artifacts(undisturbed, shown):
    api = undisturbed.env["PREFECT_API_URL"]
    main = ask(api, "flow_runs", flow_runs={"id": {"any_": [shown["prefect_run_id"]]}})
    assert [run["state"]["type"] for run in main] == ["COMPLETED"]
    stages = ask(api, "flow_runs", flow_runs={"id": {"any_": [stage["prefect_run_id"] for stage in shown["stages"]]}})
    assert sorted(run["name"] for run in stages) == ["one <- teacher", "three <- two", "two <- one"]
    tasks = ask(api, "task_runs", task_runs={"flow_run_id": {"any_": [shown["prefect_run_id"]]}})
    assert {run["parent_task_run_id"] for run in stages} <= {task["id"] for task in tasks}
    graph = dict(ask_prefect("GET", f"{api}/flow_runs/{shown['prefect_run_id']}/graph-v2").raise_for_status().json()["nodes"])
    inner = ask(api, "task_runs", task_runs={"flow_run_id": {"any_": [run["id"] for run in stages]}})
    assert {"one <- teacher", "two <- one", "three <- two", "evaluate two", "gate: two", "record two"} <= {task["name"] for task in inner}

    arrows = {node["label"]: {edge["id"] for edge in node["parents"]} for node in graph.values()}
    drawn = {label: {graph[each]["label"] for each in above} for label, above in arrows.items()}
    chain = ["data: digits", "teacher: train", "evaluate teacher", "bench teacher", "record teacher", *STAGES, "report"]
    expected = {chain[0]: set()} | {below: {above} for above, below in pairwise(chain)} | {"register": {STAGES[-1]}}
    assert drawn == expected, "the lineage, and no other arrow"

    ids = [shown["prefect_run_id"], *(run["id"] for run in stages)]
    artifacts = ask(api, "artifacts", artifacts={"flow_run_id": {"any_": ids}})
    kinds = {artifact["key"]: artifact["type"] for artifact in artifacts}
    assert kinds["ladder-table"] == "table"
    assert kinds["ladder-report"] == "markdown"
    assert kinds["mlflow"] == "markdown"  # Prefect stores a link as the Markdown of one
    assert {key for key, kind in kinds.items() if kind == "progress"} >= {"progress-one", "progress-two", "progress-three"}
    link = next(artifact["data"] for artifact in artifacts if artifact["key"] == "mlflow")
    assert shown["mlflow_run_id"] in link
