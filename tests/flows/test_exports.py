"""Exports as a step of a ladder: made, reused, and a refused one fails the run after its report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.flows.driver import Cli, wait_for
from tests.flows.served import Start

pytestmark = pytest.mark.slow  # a graph is traced, and four processes import torch


def test_a_ladder_exports_its_last_student(undisturbed: Cli, tiny: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(undisturbed.home, home)
    cli = Cli(home, dict(undisturbed.env))
    strict = "{format: onnx-int8, max_kl: 1e-12, examples: 64}"
    refused = cli("run", tiny, f"exports=[{{format: hf, examples: 64}}, {strict}]", code=3)
    assert "three as onnx-int8 is outside its tolerance: a mean KL divergence" in refused.err
    shown = cli.json("show")
    assert shown["status"] == "failed"
    assert [(each["name"], each["refused"] is None) for each in shown["exports"]] == [("hf", True), ("onnx-int8", False)]
    assert "Exports" in Path(shown["report"]).read_text()
    assert [path.name.rpartition("-")[0] for path in (home / "store" / "export").iterdir()] == ["three-hf"]
    again = cli("run", tiny, "exports=[{format: hf, examples: 64}]")
    assert again.code == 0
    assert [each["reused"] for each in cli.json("show")["exports"]] == [True]
    early = cli("run", tiny, "exports=[gguf]", code=2)
    assert "exports[0].format: got 'gguf'; allowed: hf, onnx or onnx-int8, for workload image-classification" in early.err


def test_the_deployment_exports_the_last_student_and_records_it(done: Cli, start: Start) -> None:
    server = start(done)
    run = server.start_run("export/export", formats=["hf", "onnx"])
    wait_for(lambda: server.state(run) in ("Completed", "Failed", "Crashed"), "the export")
    assert server.state(run) == "Completed", server.ask("GET", f"/flow_runs/{run}")["state"]["message"]
    shown = done.json("show")
    assert [(each["name"], each["refused"]) for each in shown["exports"]] == [("hf", None), ("onnx", None)]
    (table,) = server.ask("POST", "/artifacts/filter", json={"artifacts": {"key": {"any_": ["ladder-exports"]}}})
    assert table["flow_run_id"] == run
    assert [row["format"] for row in json.loads(table["data"])] == ["torch", "hf", "onnx"]

    from mlflow import MlflowClient

    student = shown["stages"][-1]
    recorded = MlflowClient(f"sqlite:///{done.home}/mlflow/mlflow.db").get_run(student["mlflow_run_id"]).data
    fingerprints = {f"ladder.export.{each['name']}": each["fingerprint"] for each in shown["exports"]}
    assert {key: value for key, value in recorded.tags.items() if key.startswith("ladder.export.")} == fingerprints
    assert recorded.metrics["export/onnx/agreement"] == 1.0
    assert recorded.metrics["export/onnx/largest_difference"] < 1e-4
    assert recorded.metrics["export/hf/accuracy"] == pytest.approx(recorded.metrics["export/onnx/accuracy"])

    outside = server.start_run("export/export", formats=["hf"], to="/elsewhere")
    wait_for(lambda: server.state(outside) == "Failed", "the refusal")
    assert "to: got '/elsewhere'" in server.ask("GET", f"/flow_runs/{outside}")["state"]["message"]
