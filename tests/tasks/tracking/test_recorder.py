"""Retries while MLflow is away, refusals, and curves with missing steps."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conf.errors import RecordUnavailable, StoreError, UserError
from conf.home import Home
from tasks.records.run import StageRecord
from tasks.tracking.client import translate_errors
from tasks.tracking.recorder import Recorder, patience
from tasks.tracking.tracker import Tracker, connect
from tests.factories import corpus_in, model_record, split_of

pytestmark = pytest.mark.thorough

RUN = "0" * 32  # no run has this id


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return connect(Home(tmp_path_factory.mktemp("record")))


@pytest.fixture
def nobody(tmp_path: Path) -> Tracker:
    """A record whose server has gone away."""
    from mlflow import MlflowClient

    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://ann:s3cret@127.0.0.1:{free.getsockname()[1]}"
    return Tracker(Home(tmp_path), address, MlflowClient(address))


def counted(calls: list[float], act: Callable[[], None] = lambda: None) -> Callable[[Tracker, str], str]:
    def call(tracker: Tracker, run_id: str) -> str:
        calls.append(time.monotonic())
        act()
        return "done"

    return call


def test_an_absent_server_is_waited_for_once(nobody: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADDER_RECORD_PATIENCE", "2.5")
    monkeypatch.setattr("tasks.tracking.recorder.PAUSE_SECONDS", 0.2)
    recorder, calls = Recorder(lambda: nobody), []
    began = time.monotonic()
    assert recorder.attempt("one", RUN, counted(calls)) is None
    first = time.monotonic() - began
    assert recorder.attempt("two", RUN, counted(calls)) is None
    second = time.monotonic() - began - first
    assert 0.5 < first < 4
    assert second < 0.5, "after that each is tried once"
    assert calls == [], "the server is asked before anything is sent to it"
    assert [what.split(": ")[0] for what in recorder.unrecorded] == ["one", "two"]
    assert "connection refused" in recorder.unrecorded[0]
    assert "s3cret" not in " ".join(recorder.unrecorded)


def test_what_is_refused_is_not_tried_again(tracker: Tracker) -> None:
    recorder, calls = Recorder(lambda: tracker), []
    assert recorder.attempt("tags", RUN, counted(calls, lambda: tracker.set_tags(RUN, {"a": "b"}))) is None
    assert len(calls) == 1
    assert [what.split(": ")[0] for what in recorder.unrecorded] == ["tags"]
    assert recorder.attempt("tags", RUN, counted(calls)) == "done"
    assert recorder.unrecorded == (), "made up for"


def test_what_passes_is_tried_again(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.tracking.recorder.PAUSE_SECONDS", 0.02)
    recorder, calls = Recorder(lambda: tracker), []

    def third_time() -> None:
        if len(calls) < 3:
            raise RecordUnavailable("away")

    assert recorder.attempt("one", RUN, counted(calls, third_time)) == "done"
    assert len(calls) == 3
    assert recorder.unrecorded == ()


def test_a_full_disk_is_not_waited_for(tracker: Tracker) -> None:
    def full(tracker: Tracker, run_id: str) -> None:
        raise StoreError("full")

    with pytest.raises(StoreError):
        Recorder(lambda: tracker).attempt("one", RUN, full)


@pytest.mark.parametrize("given", ["soon", "-1", "nan", "1e9"])
def test_patience_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("LADDER_RECORD_PATIENCE", given)
    with pytest.raises(UserError, match="LADDER_RECORD_PATIENCE"):
        patience()


def test_a_request_thought_lost_makes_no_second_point(tracker: Tracker) -> None:
    run = tracker.open_ladder("run-twice", "moody", "h", "", params={}, environment={})
    points = [("train/loss", 1 / step, step, 1000 + step) for step in range(1, 2001)]
    tracker.log_points(run, points[:700])
    tracker.log_points(run, points)
    assert [point.step for point in tracker.client.get_metric_history(run, "train/loss")] == list(range(1, 2001))


def record_of(name: str, **changes: object) -> StageRecord:
    return model_record(name, **{"steps": 9, "seconds": 1.5, "metrics": {"nll": 1.5}, **changes})


def test_a_curve_with_holes_is_filled_once(tracker: Tracker) -> None:
    parent = tracker.open_ladder("run-holes", "holes", "h", "", params={}, environment={})
    stage = tracker.open_stage(parent, "s", "fp-s", settings={})
    tracker.log_points(stage.run_id, [("train/loss", float(step), step, 5) for step in (1, 2, 5, 6)])
    for _ in range(2):
        curve = [(step, {"train/loss": float(step)}) for step in range(1, 10)]
        tracker.finish_stage(stage.run_id, record_of("s", resumed_at=4), workload="causal-lm", folder=None, curve=lambda c=curve: c)
    history = tracker.client.get_metric_history(stage.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in history) == [(step, float(step)) for step in range(1, 10)]


def test_a_model_whose_first_run_was_not_recorded_is_recorded_by_the_next_and_then_linked(tracker: Tracker) -> None:
    made = []
    for attempt, whole in (("lost", False), ("second", True), ("third", True)):
        parent = tracker.open_ladder(f"run-{attempt}", "again", "h", "", params={}, environment={})
        stage = tracker.open_stage(parent, "s", "fp-s", settings={})
        if whole:
            record = record_of("s", reused=True, reused_from="run-lost")
            arguments = {"workload": "causal-lm", "folder": None, "original_run_id": made[0][0]}
            made.append((stage.run_id, tracker.finish_stage(stage.run_id, record, **arguments, curve=lambda: [(1, {"train/loss": 2.0})])))
        else:
            made.append((stage.run_id, None))
        tracker.close_children(parent, "KILLED")
        tracker.close(parent, "FINISHED")
    status = [tracker.client.get_run(run_id).info.status for run_id, _ in made]
    points = [len(tracker.client.get_metric_history(run_id, "train/loss")) for run_id, _ in made]
    assert (status, points) == (["KILLED", "FINISHED", "FINISHED"], [0, 1, 0])
    assert made[1][1] == made[2][1], "stored once"


def test_an_empty_twin_of_a_stage_does_not_stay(tracker: Tracker) -> None:
    parent = tracker.open_ladder("run-twin", "twins", "h", "", params={}, environment={})
    stage = tracker.open_stage(parent, "s", "fp-s", settings={})
    tracker.log_points(stage.run_id, [("train/loss", 1.0, 1, 5)])
    run = tracker.client.get_run(stage.run_id)
    twin = tracker.client.create_run(run.info.experiment_id, tags=dict(run.data.tags), run_name="s")
    assert tracker.open_stage(parent, "s", "fp-s", settings={}).run_id == stage.run_id
    tracker.finish_stage(stage.run_id, record_of("s"), workload="causal-lm", folder=None)
    tracker.close_children(parent, "KILLED")
    assert tracker.client.get_run(twin.info.run_id).info.lifecycle_stage == "deleted"
    assert tracker.client.get_run(stage.run_id).info.status == "FINISHED"


def test_eight_runs_that_record_the_same_data_at_once(tracker: Tracker, tmp_path: Path) -> None:
    """MLflow looks a data set up and then inserts it, so that most of these would be refused by its database."""
    split = split_of([[1, 2, 3]], [0], [0], [3])
    corpus = corpus_in(tmp_path / "corpus", "causal-lm", 4, {"train": split, "valid": split, "test": split})
    for round in range(3):
        runs = [tracker.open_ladder(f"race-{round}-{i}", f"race-{round}", "h", "", params={}, environment={}) for i in range(8)]
        together = threading.Barrier(len(runs))

        def record(run_id: str, together: threading.Barrier = together) -> None:
            together.wait()
            tracker.log_dataset(run_id, "digits", corpus)

        with ThreadPoolExecutor(len(runs)) as pool:
            list(pool.map(record, runs))
        assert [len(tracker.client.get_run(run_id).inputs.dataset_inputs) for run_id in runs] == [1] * 8


def test_a_race_that_the_database_refuses_is_tried_again(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST

    monkeypatch.setattr("tasks.tracking.recorder.PAUSE_SECONDS", 0.02)
    recorder, calls = Recorder(lambda: tracker), []

    def lost(tracker: Tracker, run_id: str) -> str:
        calls.append(time.monotonic())
        if len(calls) < 3:
            with translate_errors(tracker.home, tracker.address):
                raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id", BAD_REQUEST)
        return "done"

    assert recorder.attempt("one", RUN, lost) == "done"
    assert len(calls) == 3
