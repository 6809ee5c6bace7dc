"""Points of a training reach MLflow once each, through outages."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from conf.errors import RecordUnavailable, StoreError
from conf.home import Home
from tasks.tracking.curves import CurveLogger
from tasks.tracking.runs import StageRun
from tasks.tracking.tracker import Tracker, connect


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return connect(Home(tmp_path_factory.mktemp("record")))


def test_points_arrive_by_themselves(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.tracking.curves.FLUSH_SECONDS", 0.05)
    stage = tracker.open_stage(tracker.open_ladder("run-slow", "slow", "h", "", params={}, environment={}), "s", "fp-slow", settings={})
    before = int(time.time() * 1000)
    with CurveLogger("s", tracker, lambda: stage) as curves:
        curves.add(1, {"train/loss": 1.0})
        curves.add(2, {"train/loss": float("nan")})
        until = time.monotonic() + 10
        while len(points := tracker.client.get_metric_history(stage.run_id, "train/loss")) < 2 and time.monotonic() < until:
            time.sleep(0.05)
    assert [point.step for point in points] == [1, 2]
    assert all(before <= point.timestamp <= int(time.time() * 1000) for point in points)


def test_a_full_disk_ends_the_training(tracker: Tracker) -> None:
    def full() -> StageRun:
        raise StoreError("full")

    def training() -> None:
        with CurveLogger("one", tracker, full) as curves:
            for step in range(100):
                time.sleep(0.02)
                curves.add(step, {"train/loss": 1.0})
            raise AssertionError("it went on")

    with pytest.raises(StoreError):
        training()


def test_no_point_is_lost_or_doubled_while_a_server_comes_and_goes(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.tracking.curves.PAUSE_SECONDS", 0.02)
    monkeypatch.setattr("tasks.tracking.curves.FLUSH_SECONDS", 0.02)
    parent = tracker.open_ladder("run-moody", "moody", "h", "", params={}, environment={})
    asked = Counter[str]()

    def moody() -> StageRun:
        asked["open"] += 1
        if asked["open"] < 4:
            raise RecordUnavailable("away")
        return tracker.open_stage(parent, "s", "fp-moody", settings={})

    with CurveLogger("s", tracker, moody) as curves:
        for step in range(1, 301):
            curves.add(step, {"train/loss": float(step)})
            if step % 50 == 0:
                curves.flush()
            time.sleep(0.001)
    curves.send()
    run = tracker.open_stage(parent, "s", "fp-moody", settings={})
    assert [point.step for point in tracker.client.get_metric_history(run.run_id, "train/loss")] == list(range(1, 301))
    assert asked["open"] == 4
    assert not [thread for thread in threading.enumerate() if thread.name == "curves of s"]
