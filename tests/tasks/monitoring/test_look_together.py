"""Windows of several versions on a Dask cluster: the reports of one process, also of machines without the run's disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from conf.errors import LadderError
from conf.home import Home
from tasks.monitoring import look_together as module
from tasks.monitoring.history import read_history
from tasks.monitoring.look import look, new_windows
from tasks.monitoring.look_together import judge_job, look_together
from tasks.monitoring.reference import Watched
from tasks.records.monitoring import WindowEntry
from tasks.runtime.cluster.client import VARIABLE
from tests.tasks.monitoring.conftest import VIT, promote, reviews, write_rows

pytestmark = pytest.mark.thorough

NAMES = ("first", "second")


@pytest.fixture
def several(texts: Watched, tmp_path: Path) -> list[Watched]:
    """Versions of two names, each with windows of its own; the second's has a row of its first again."""
    found = []
    for place, name in enumerate(NAMES):
        for hour in range(2):
            rows = reviews(60, seed=10 * place + hour, flip=0.3 * hour)
            write_rows(tmp_path / name / f"h{hour}.jsonl", rows if hour == 0 else [*rows, *reviews(60, seed=10 * place)[:5]])
        monitoring = texts.ladder.monitoring.model_copy(update={"windows": str(tmp_path / name)})
        ladder = texts.ladder.model_copy(update={"monitoring": monitoring})
        found.append(replace(texts, version=replace(texts.version, name=name), ladder=ladder))
    return found


def plain(entries: Sequence[WindowEntry]) -> list[dict[str, Any]]:
    """Entries but for the time of the look."""
    return [entry.model_copy(update={"report": entry.report.model_copy(update={"looked": "-"})}).model_dump() for entry in entries]


def home_beside(seen: Watched, folder: Path) -> Home:
    """A copy of the home of `promote`, whose results it shares with no other."""
    source = Path(seen.record.folder).parents[1]
    for part in ("reference", "shadow"):
        shutil.rmtree(source / "store" / part, ignore_errors=True)
    shutil.copytree(source, folder)
    return Home(folder)


@pytest.mark.slow
def test_reports_of_a_cluster_are_those_of_one_process(several: list[Watched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, together = (home_beside(several[0], tmp_path / name) for name in ("alone", "together"))
    wanted = [plain(found.entries) for found in look_together(alone, several, None)]
    assert [len(entries) for entries in wanted] == [2, 2]
    assert wanted[0][1]["report"]["repeated"] == 5
    assert wanted[0][0]["report"]["signals"].keys() == {"quality", "estimate", "agreement", "teacher"}
    here_alone: Any = LocalCluster
    with here_alone(n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None) as cluster:
        monkeypatch.setenv(VARIABLE, cluster.scheduler_address)
        monkeypatch.setattr(module, "look", None)  # nothing is judged here
        assert [plain(found.entries) for found in look_together(together, several, None)] == wanted
        assert [plain(read_history(together, name)) for name in NAMES] == wanted
        monkeypatch.undo()
    monkeypatch.setenv(VARIABLE, "tcp://127.0.0.1:1")  # a cluster that is away, and not asked where there is nothing to judge
    assert [found.entries for found in look_together(together, several, None)] == [[], []]


def test_a_machine_without_the_runs_disk_finds_all_in_the_object_store(
    several: list[Watched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, seen = home_beside(several[0], tmp_path / "home"), several[0]
    (tmp_path / "bucket").mkdir()
    monkeypatch.setenv("LADDER_STORE", f"file://{tmp_path}/bucket")
    unseen = tmp_path / "unseen"
    teacher = seen.record.teacher
    assert teacher is not None
    moved = {"folder": str(unseen / "teacher")}
    elsewhere = replace(
        seen,
        version=replace(seen.version, folder=unseen / "student"),
        data=seen.data.model_copy(update={"folder": str(unseen / "data")}),
        record=seen.record.model_copy(update={"teacher": teacher.model_copy(update=moved)}),
    )
    with new_windows(home, seen, None, seen.ladder.monitoring) as new:
        job = module.job_of(Home(unseen / "home"), elsewhere, new).model_copy(update={"asks_teacher": True})
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "own"))
    with pytest.raises(LadderError, match=r"does not see .*Give all machines the same LADDER_STORE, or a disk"):
        judge_job(job)
    monkeypatch.setenv("LADDER_HOME", str(home.root))
    outcome = judge_job(job)
    assert plain(outcome.entries) == plain(look(home, seen, None, seen.ladder.monitoring).entries)


def test_pictures_that_a_machine_does_not_see_are_looked_at_by_the_run(tmp_path: Path) -> None:
    data = {"source": "digits", "valid_fraction": 0.2, "test_fraction": 0.2}
    seen = promote(tmp_path, workload="image-classification", data=data, shape=VIT)
    write_rows(tmp_path / "windows" / "h0.jsonl", [{"input": "one.png"}])
    home = Home(tmp_path / "home")
    with new_windows(home, seen, str(tmp_path / "windows"), seen.ladder.monitoring) as new:
        job = module.job_of(home, seen, new)
    assert judge_job(job).unseen is None
    (tmp_path / "windows").rename(tmp_path / "gone")
    assert judge_job(job).unseen == str(tmp_path / "windows")
