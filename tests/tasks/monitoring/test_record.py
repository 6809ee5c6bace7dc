"""A window in MLflow: one run, however often it is recorded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conf.home import Home
from tasks.monitoring.record import record_window
from tasks.tracking.tracker import connect
from tests.tasks.report.test_monitoring_page import report


def test_a_window_is_recorded_once(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = Home(tmp_path / "home")
    home.mlflow.mkdir(parents=True)
    shutil.copy(empty_database, home.mlflow / "mlflow.db")
    tracker = connect(home)
    first = report(4, 0.8, diagnosis="distil again", why="Accuracy has dropped.", trigger=True, cause="tiny/1:h3")
    made = record_window(tracker, first)
    assert record_window(tracker, first) == made
    assert record_window(tracker, report(5, 0.9)) != made
    run = tracker.client.get_run(made)
    assert run.data.metrics["window/accuracy"] == 0.8
    assert run.data.tags["ladder.cause"] == "tiny/1:h3"
    assert run.data.tags["ladder.trigger"] == "true"
    experiment = tracker.client.get_experiment(run.info.experiment_id)
    assert experiment.name == "tiny-monitoring"
    assert len(tracker.client.search_runs([experiment.experiment_id])) == 2
