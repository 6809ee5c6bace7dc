"""Several students of one rung, and teachers that take turns, from the command line."""

from __future__ import annotations

import pytest

TURNS = ("stages.one.members=2", "stages.two.teachers=[rising]", "stages.two.training.steps=20")


@pytest.mark.slow
def test_members_are_made_recorded_kept_and_found_again(finished, tiny):
    plan = finished.json("plan", tiny, *TURNS)
    assert (plan["stages"][0]["members"], plan["stages"][0]["stored"], plan["stages"][0]["action"]) == (2, 1, "compute")
    assert "computed, 1 of 2 stored" in finished("plan", tiny, *TURNS).out
    finished("run", tiny, *TURNS)
    shown = finished.json("show")
    one, two, _ = shown["stages"]
    [other] = one["members"]
    assert (other["name"], other["metrics"]["accuracy"] > 0.1) == ("one.2", True)
    assert [one["flops"], two["flops"]] == [stage["flops"] for stage in plan["stages"][:2]]
    assert two["teachers"] == ["one", "one.2", "teacher"]

    from mlflow import MlflowClient

    client = MlflowClient(shown["mlflow_uri"])
    found = client.get_run(other["mlflow_run_id"])
    assert (found.info.run_name, found.data.tags["mlflow.parentRunId"]) == ("one.2", shown["mlflow_run_id"])

    finished("run", tiny, *TURNS)
    again = finished.json("show")
    assert all(model["reused"] for model in (*again["stages"], *again["stages"][0]["members"]))
    assert again["stages"][0]["fingerprint"] == one["fingerprint"]
