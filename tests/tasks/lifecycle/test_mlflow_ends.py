"""A run whose process was killed before it closed MLflow is closed later."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from conf.home import Home
from conf.loading.load import load
from tasks.lifecycle.dead_runs import reap
from tasks.lifecycle.ladder_run import LadderRun
from tasks.lifecycle.mlflow_ends import close_earlier
from tasks.lifecycle.request import ResolvedRequest, RunRequest
from tasks.records.run import RunRecord
from tasks.runtime.runs.run_registry import END, load_run, save
from tasks.tracking.tracker import Tracker, connect
from tests.factories import corpus_in, data_record, split_of

pytestmark = pytest.mark.processes

JUNK = "this is not SQLite, whatever its name says" * 50


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made where junk lay in its place."""
    place = Home(tmp_path_factory.mktemp("record"))
    place.mlflow.mkdir()
    (place.mlflow / "mlflow.db").write_text(JUNK)
    connect(place)
    return place.mlflow / "mlflow.db"


@pytest.fixture
def home(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    place = Home(tmp_path / "home")
    place.mlflow.mkdir(parents=True)
    shutil.copy(empty_database, place.mlflow / "mlflow.db")
    return place


def killed_in_a_run(act: Callable[[LadderRun], object]) -> None:
    """Open a run in a process of its own, which is killed after `act`."""
    process = os.fork()
    if process == 0:
        try:
            found = load("digits")
            with LadderRun.open(ResolvedRequest(RunRequest("digits"), found.ladder, found.base, ())) as run:
                act(run)
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def status(tracker: Tracker, record: RunRecord) -> str:
    run_id = tracker.find_ladder(record.run, record.ladder)
    assert run_id
    return tracker.client.get_run(run_id).info.status


def test_a_run_killed_after_its_record_says_done_is_finished_in_mlflow(home: Home) -> None:
    killed_in_a_run(lambda run: run.save_end(run.finish()))
    record, tracker = load_run(home), connect(home)
    assert (record.status, status(tracker, record)) == ("done", "RUNNING")
    assert [text.partition(":")[0] for text in record.unrecorded] == [END]

    assert reap(home) == [], "it has ended by itself"
    assert (load_run(home).unrecorded, status(tracker, record)) == ((), "FINISHED")
    run = tracker.client.get_run(record.mlflow_run_id or "")
    assert run.info.start_time <= run.info.end_time


def test_a_dead_run_is_closed_once_mlflow_is_there_again(home: Home) -> None:
    killed_in_a_run(lambda run: None)
    away = home.root / "mlflow-away"
    home.mlflow.rename(away)
    home.mlflow.touch()
    (dead,) = reap(home)
    assert (dead.status, reap(home)) == ("interrupted", [])
    assert [text.partition(":")[0] for text in load_run(home).unrecorded] == [END]

    home.mlflow.unlink()
    away.rename(home.mlflow)
    tracker = connect(home)
    assert status(tracker, dead) == "RUNNING"
    assert reap(home) == []
    assert (load_run(home).unrecorded, status(tracker, dead)) == ((), "KILLED")


def test_a_data_set_that_was_not_recorded_is_recorded_later(home: Home) -> None:
    killed_in_a_run(lambda run: run.save_end(run.finish()))
    corpus = corpus_in(
        home.root / "corpus", "causal-lm", 4, {name: split_of([[1, 2, 3]], [0], [0], [3]) for name in ("train", "valid", "test")}
    )
    record, tracker = load_run(home), connect(home)
    lacking = (*record.unrecorded, "data set: MLflow did not take it", "report: MLflow did not take it")
    save(home, record.model_copy(update={"unrecorded": lacking, "data": data_record(folder=str(corpus.folder))}))
    close_earlier(home, tracker)
    assert [text.partition(":")[0] for text in load_run(home).unrecorded] == ["report"]
    (logged,) = tracker.client.get_run(record.mlflow_run_id or "").inputs.dataset_inputs
    assert logged.dataset.name == record.ladder


def test_a_living_run_is_left_alone(home: Home) -> None:
    found = load("digits")
    with LadderRun.open(ResolvedRequest(RunRequest("digits"), found.ladder, found.base, ())) as run:
        run.save_end(run.finish())
        close_earlier(home)
        tracker = connect(home)
        assert status(tracker, run.record) == "RUNNING"
    assert (load_run(home).unrecorded, status(tracker, run.record)) == ((), "FINISHED")


def test_a_damaged_database_was_set_aside(empty_database: Path) -> None:
    (aside,) = empty_database.parent.glob("mlflow.db.damaged-*")
    assert aside.read_text() == JUNK


def test_a_clock_that_is_set_back_makes_no_negative_durations(home: Home) -> None:
    found, later = load("digits"), "2100-01-01T00:00:00+00:00"
    with LadderRun.open(ResolvedRequest(RunRequest("digits"), found.ladder, found.base, ())) as run:
        tracker = connect(home)
        began = datetime.fromisoformat(later).timestamp() * 1000
        experiment = run.record.mlflow_experiment_id
        assert experiment
        run_id = tracker.client.create_run(experiment, start_time=int(began)).info.run_id
        run.save(run.record.model_copy(update={"started": later, "mlflow_run_id": run_id}))
        run.save(run.finish())
    record = load_run(home)
    assert (record.finished, (record.seconds or -1) >= 0) == (later, True)
    ended = tracker.client.get_run(run_id).info
    assert ended.end_time == ended.start_time
