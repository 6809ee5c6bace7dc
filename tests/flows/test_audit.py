"""Audits in a run: made before the gate, stored, recorded, reused, gated on."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from mlflow import MlflowClient

from tests.flows.driver import actions

FEWER = ("audit.min_count=5", "audit.min_documents=5", "audit.resamples=200")


@pytest.mark.slow
def test_a_student_is_audited_against_parent_root_and_control(cli, tiny):
    asked = ("audit.control=true", *FEWER)
    first = cli("run", tiny, *asked)
    for name in ("one", "two", "three"):
        assert f"{name}-control: computed" in first.err
    shown = cli.json("show")
    one, three = shown["stages"][0]["audit"], shown["stages"][2]["audit"]
    assert (one["parent"], one["root"], three["parent"], three["root"]) == ("teacher", "teacher", "two", "teacher")
    assert three["figures"]["parent.agreement"]["value"] == shown["stages"][2]["metrics"]["agreement_parent"]
    assert abs(three["figures"]["ece"]["value"] - shown["stages"][2]["metrics"]["ece"]) < 1e-6
    assert three["figures"]["root.inheritance_excess"]["rows"] > 0
    assert sum(three["figures"][f"provenance.{who}"]["value"] or 0 for who in ("root", "assistant", "new")) in (0, 1)
    table = parquet.read_table(Path(three["folder"]) / "worst.parquet").to_pylist()
    assert 0 < len(table) <= 100
    assert all(len(row["pixels"]) == 64 for row in table)

    client = MlflowClient(shown["mlflow_uri"])
    run_id = shown["stages"][2]["mlflow_run_id"]
    metrics = client.get_run(run_id).data.metrics
    assert metrics["audit/parent.agreement"] == three["figures"]["parent.agreement"]["value"]
    assert "worst.parquet" in [file.path for file in client.list_artifacts(run_id)]
    runs = client.search_runs([client.get_run(run_id).info.experiment_id])
    assert len(runs) == 5  # the ladder, the teacher and three students: a control is no rung
    assert "Audit: agreement of each student with its teachers" in Path(shown["report"]).read_text()

    cli.env["PYTHONPROFILEIMPORTTIME"] = "1"
    again = cli("run", tiny, *asked)
    assert set(actions(again.err).values()) == {"reused"}
    imported = {line.rpartition("|")[2].strip() for line in again.err.splitlines() if line.startswith("import time:")}
    unneeded = {"transformers", "sklearn", *(["torch"] if (cli.home / "hardware.json").exists() else [])}
    assert imported & unneeded == set()
    assert [stage["audit"]["reused"] for stage in cli.json("show")["stages"]] == [True] * 3


@pytest.mark.slow
def test_too_few_examples_stop_a_gate_that_asks(finished, tiny):
    refused = finished("run", tiny, "stages.one.gate.max_slice_amplification=1000", "audit.min_count=300", code=3)
    assert "too few examples for parent.amplification in 10 slices" in refused.err
    audit = finished.json("show")["stages"][0]["audit"]
    assert (audit["judged"], audit["flagged"]) == (0, [])


@pytest.mark.slow
def test_a_gate_judges_the_upper_end_of_the_interval(finished, tiny):
    settings = ("audit.min_count=2", "audit.min_documents=2")
    finished("run", tiny, "stages.one.gate.max_ece=1", *settings)
    figure = finished.json("show")["stages"][0]["audit"]["figures"]["ece"]
    between = (figure["value"] + figure["high"]) / 2
    refused = finished("run", tiny, f"stages.one.gate.max_ece={between}", *settings, code=3)
    assert "one has ece" in refused.err
    assert f"gate.max_ece asks at most {between:g}" in refused.err


@pytest.mark.slow
def test_no_audit_where_none_is_asked_for(finished, tiny):
    finished("run", tiny, "audit.enabled=false")
    shown = finished.json("show")
    assert [stage["audit"] for stage in shown["stages"]] == [None] * 3
    assert "Audit:" not in Path(shown["report"]).read_text()
