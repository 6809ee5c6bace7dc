"""Runs record nothing, and do not open MLflow, while it is off."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.home import Home
from tasks.tracking.null import NullTracker
from tasks.tracking.recorder import Recorder, tracker_of
from tasks.tracking.tracker import Tracker, connect


def fail(tracker: Tracker, run_id: str) -> str:
    raise AssertionError("nothing is to be recorded")


def test_the_variable_turns_mlflow_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    tracker = tracker_of(Home(tmp_path / "home"))
    assert tracker == NullTracker("MLFLOW_TRACKING_URI=none")
    assert (tracker.uri, tracker.experiment("digits")) == (None, None)
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI: got 'none'; allowed: an MLflow server .* This needs MLflow"):
        connect(Home(tmp_path / "home"))
    assert not (tmp_path / "home").exists()


@pytest.mark.usefixtures("calm")
def test_a_run_is_told_once_and_has_no_id(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ladder"):
        assert NullTracker("tracking: off").open_ladder("run", "digits", "h", "a: 1", params={}, environment={}) is None
    assert caplog.messages == ["MLflow is off (tracking: off): the run is kept in the store and in its own folder"]


def test_nothing_is_attempted_and_nothing_is_missing() -> None:
    recorder = Recorder(lambda: NullTracker("tracking: off"))
    assert recorder.attempt("report", "0" * 32, fail) is None
    with recorder.curves("0" * 32, "one", "fp", settings={}, teacher_run_ids=()) as curves:
        assert curves is None
    recorder.send_pending("fp")
    assert recorder.unrecorded == ()


def test_a_run_without_an_id_opens_no_connection() -> None:
    def refuse() -> Tracker:
        raise AssertionError("no connection is needed")

    recorder = Recorder(refuse)
    assert recorder.attempt("report", None, fail) is None
    with recorder.curves(None, "one", "fp", settings={}, teacher_run_ids=()) as curves:
        assert curves is None


def test_a_recorded_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"teacher\.path: got 'models:/x/1'; allowed: .* as MLflow is off \(tracking: off\)"):
        NullTracker("tracking: off").resolve_model("models:/x/1")
