"""A work pool of hosts that share servers and an object store alone; one is cut off in the middle of a stage.

As docs/how-to/deploy.md has it: a process pool, `ladder deploy`, a worker on each host, and Prefect's automation of silent runs.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.flows.driver import newest_checkpoint, wait_for
from tests.flows.serving.cluster_of_hosts import LESS, TEACHER_STEPS, Cluster, one_stage
from tests.hosts import hosts

pytestmark = [pytest.mark.processes, pytest.mark.slow]
ROOT = Path(__file__).parents[3]
POOL = "gpus"
OVERRIDES = ("stages.one.training.steps=400", *LESS)
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Pool:
    """A process pool, the deployments on it, and what its servers say of their runs."""

    def __init__(self, cluster: Cluster, stack: ExitStack) -> None:
        self.cluster, self.stack = cluster, stack
        prefect = ("-m", "prefect", "--no-prompt")
        cluster.run("server", *prefect, "work-pool", "create", "--type", "process", POOL)
        cluster.run("server", "-m", "flows.cli.app", "deploy", "--work-pool", POOL)
        automation = ROOT / "docs" / "how-to" / "deploying" / "silent-runs.yaml"
        cluster.run("server", *prefect, "automation", "create", "--from-file", str(automation))

    def work(self, host: str) -> ExitStack:
        """Start a worker, which ends with the stack that is returned, or with the test."""
        worker = self.stack.enter_context(ExitStack())
        worker.enter_context(self.cluster.started(host, "-m", "prefect", "worker", "start", "--pool", POOL))
        return worker

    def begin(self, ladder: Path) -> str:
        """Start a run of the deployment; gives its id."""
        deployment = self.cluster.prefect("GET", "/deployments/name/distill/distill")["id"]
        body = {"parameters": {"ladder": str(ladder), "overrides": OVERRIDES}}
        return self.cluster.prefect("POST", f"/deployments/{deployment}/create_flow_run", body)["id"]

    def wait(self, run: str, *kinds: str, seconds: float = 1200.0) -> dict[str, Any]:
        """The state of a run once it is of one of these kinds."""

        def ended() -> Any:
            time.sleep(0.5)
            now = self.cluster.prefect("GET", f"/flow_runs/{run}")["state"]
            return now["type"] in kinds and now

        return wait_for(ended, f"{run} to be {' or '.join(kinds)}, see {self.cluster.folder}", seconds)

    def children(self, run: str) -> set[str]:
        """States of the subflows of a run, and of all its tasks."""
        flows = self.cluster.prefect("POST", "/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}})
        ids = [run, *(each["id"] for each in flows)]
        tasks = self.cluster.prefect("POST", "/task_runs/filter", {"task_runs": {"flow_run_id": {"any_": ids}}})
        return {each["state"]["type"] for each in (*flows, *tasks)}

    def recorded(self) -> dict[str, dict[str, str]]:
        """Our runs -> the states of their models in MLflow, and of the run itself as `run`."""
        found = self.cluster.record("/runs/search", {"experiment_ids": ["1"], "max_results": 100})["runs"]
        tags = {run["info"]["run_id"]: {tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in found}
        states = dict[str, dict[str, str]]()
        for run in found:
            own = tags[run["info"]["run_id"]]
            parent = tags[own["mlflow.parentRunId"]] if "mlflow.parentRunId" in own else own
            states.setdefault(parent["ladder.run"], {})[own.get("ladder.stage", "run")] = run["info"]["status"]
        return states


def runs_of(home: Path) -> dict[str, dict[str, Any]]:
    """Records of a host's runs, by the flow run."""
    records = [json.loads(path.read_text()) for path in home.glob("runs/*/record.json")]
    return {record["prefect_run_id"]: record for record in records}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("frozen", [False, True], ids=["goes-on", "frozen"])
def test_a_run_of_a_host_that_is_cut_off_crashes_and_another_host_does_the_next(tiny: Path, tmp_path: Path, frozen: bool) -> None:
    ladder = one_stage(tiny, tmp_path)
    with hosts("a", "b") as made, ExitStack() as stack:
        cluster = Cluster(made, tmp_path, mlflow=True)
        cluster.serve(stack)
        pool, own = Pool(cluster, stack), cluster.home("a")
        pool.work("a")
        first = pool.begin(ladder)
        wait_for(lambda: newest_checkpoint(own) > TEACHER_STEPS, f"a checkpoint of the stage, see {tmp_path}", 1800)
        made.plug("a", into=False)
        if frozen:
            made.freeze("a", still=True)
        assert not list(own.glob("store/stage/*")), "it was cut off too late"
        name_a = runs_of(own)[first]["run"]
        assert pool.wait(first, "CRASHED", seconds=300)["message"] == "no heartbeat for 90 seconds"
        assert pool.recorded() == {name_a: {"run": "RUNNING", "teacher": "FINISHED", "one": "RUNNING"}}

        worker = pool.work("b")
        second = pool.begin(ladder)
        assert pool.wait(second, *ENDED)["type"] == "COMPLETED"
        record = runs_of(cluster.home("b"))[second]
        name_b, models = record["run"], (record["teacher"], *record["stages"])
        assert [(model["name"], model["reused_from"]) for model in models] == [("teacher", name_a), ("one", None)]
        published = cluster.published()
        made_by = {(kind, run) for kind, _, run in published if kind in ("data", "teacher", "stage")}
        assert made_by == {("data", name_a), ("teacher", name_a), ("stage", name_b)}
        assert {number for _, number, _ in published} == {"1.json"}  # nothing was published twice
        recorded = pool.recorded()
        assert recorded[name_b]["run"] == "FINISHED"
        assert recorded[name_a] == {"run": "KILLED", "teacher": "FINISHED", "one": "KILLED"}, "b has closed what a left open"
        assert pool.children(first) == {"COMPLETED", "CRASHED"}

        worker.close()
        made.plug("a", into=True)
        if frozen:
            made.freeze("a", still=False)
        wait_for(lambda: runs_of(own)[first]["status"] != "running", f"the end of the run of a, see {tmp_path}", 1200)
        ends = {"done": ("COMPLETED", "FINISHED"), "failed": ("FAILED", "FAILED")}
        state, closed = ends[runs_of(own)[first]["status"]]
        pool.wait(first, state, seconds=120)
        wait_for(lambda: pool.recorded()[name_a]["run"] == closed, "the end in MLflow", 120)
        assert cluster.published() == published

        third = pool.begin(ladder)  # a is in order, and finds all
        assert pool.wait(third, *ENDED)["type"] == "COMPLETED"
        assert all(model["reused"] for model in runs_of(own)[third]["stages"])
        assert cluster.published() == published
        assert not {status for states in pool.recorded().values() for status in states.values()} & {"RUNNING"}
        for host in "ab":
            assert not list(cluster.home(host).glob("store/writing/*"))
