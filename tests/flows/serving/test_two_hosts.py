"""Two hosts that share Prefect's server and an object store alone; one is cut off in the middle of a stage."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.flows.driver import newest_checkpoint, wait_for
from tests.flows.serving.cluster_of_hosts import LESS, Cluster, one_stage
from tests.hosts import hosts

OVERRIDES = ("teacher.training.steps=400", *LESS)
pytestmark = [pytest.mark.processes, pytest.mark.slow]


@pytest.mark.timeout(3600)
def test_a_stage_passes_from_a_host_that_is_cut_off_to_another(tiny: Path, tmp_path: Path) -> None:
    ladder = one_stage(tiny, tmp_path)
    with hosts("a", "b") as made, ExitStack() as stack:
        cluster = Cluster(made, tmp_path)
        cluster.serve(stack)
        log_a = stack.enter_context(cluster.started("a", "-m", "flows.cli.app", "run", str(ladder), *OVERRIDES))
        wait_for(lambda: newest_checkpoint(cluster.home("a")), f"a checkpoint of the teacher, see {log_a}", 1800)
        made.plug("a", into=False)
        assert not list(cluster.home("a").glob("store/teacher/*")), "it was cut off too late"

        said = cluster.run("b", "-m", "flows.cli.app", "run", str(ladder), *OVERRIDES)
        assert "report.html" in said
        name_a, name_b = (next(cluster.home(host).glob("runs/*/record.json")).parent.name for host in "ab")
        kept = cluster.published()
        made_by = {(kind, run) for kind, _, run in kept if kind in ("data", "teacher", "stage")}
        assert made_by == {("data", name_a), ("teacher", name_b), ("stage", name_b)}
        assert {number for _, number, _ in kept} == {"1.json"}  # nothing was published twice
        assert not list(cluster.home("b").glob("store/writing/*"))
