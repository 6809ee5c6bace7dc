"""Decisions in faults: no champion, a registry that is away or off, two at once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.home import Home
from tasks.records.monitoring import WindowReport
from tasks.records.redistill import Redistillation
from tasks.redistill.decisions import add, decisions
from tasks.redistill.prepare import DISTIL, Drop
from tests.machine import child, read_line


@pytest.fixture
def home(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An empty home whose MLflow has nothing."""
    from tasks.tracking.recorder import tracker_of

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "home"))
    made = Home(tmp_path / "home")
    made.mlflow.mkdir(parents=True)
    shutil.copy(empty_database, made.mlflow / "mlflow.db")
    tracker_of.cache_clear()
    yield made
    tracker_of.cache_clear()


def asked(cause: str | None = "tiny/1:w1", by: str = "monitor") -> Redistillation:
    from flows.redistill import back_to_work

    return back_to_work(Drop("tiny", cause, DISTIL, "quality fell", by))


def report(cause: str | None, trigger: bool) -> WindowReport:
    fields = {"version": "tiny/1", "weights_sha256": "w", "workload": "sequence-classification", "metric": "accuracy", "window": "w1"}
    moment = "2026-01-01T00:00:00+00:00"
    more = {"content": "c", "looked": moment, "number": 1, "diagnosis": DISTIL, "drop": 0.02}
    return WindowReport(name="tiny", cause=cause, trigger=trigger, **fields, **more)


def test_without_a_champion_nothing_is_done_and_the_reason_is_kept(home: Home) -> None:
    made = asked()
    assert made.outcome == "not done"
    assert "MODEL: got 'tiny@champion'" in made.reason
    assert decisions(home, "tiny") == [made]
    assert asked(by="a person").outcome == "not done"
    assert len(decisions(home, "tiny")) == 2
    assert not (home.root / "runs").exists()


def test_a_registry_that_is_away_is_asked_again_by_the_next_window_of_the_drop(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.redistill import consider
    from tasks.tracking.recorder import tracker_of

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    first = asked()
    assert first.outcome == "put off"
    assert "127.0.0.1:1" in first.reason
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    tracker_of.cache_clear()
    again = consider(report("tiny/1:w1", trigger=False))
    assert again is not None
    assert (again.number, again.outcome) == (first.number, "not done"), "gone on with in place"
    assert consider(report("tiny/1:w1", trigger=False)) is None, "it is decided"
    assert len(decisions(home, "tiny")) == 1


def test_reports_without_a_trigger_decide_nothing(home: Home) -> None:
    from flows.redistill import consider

    assert consider(report(None, trigger=False)) is None
    assert consider(report("tiny/1:w1", trigger=False)) is None
    assert decisions(home, "tiny") == []


def test_where_mlflow_is_off_there_is_no_champion(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    made = asked()
    assert made.outcome == "not done"
    assert "MLflow is off" in made.reason


def test_two_at_once_are_put_off_and_one_that_died_is_not(home: Home) -> None:
    code = (
        "import sys, time; from pathlib import Path; from conf.home import Home; from tasks.redistill.decisions import claimed\n"
        "with claimed(Home(Path(sys.argv[1])), 'tiny') as mine:\n    print(mine, flush=True); time.sleep(60)"
    )
    with child(code, home.root) as other:
        assert read_line(other) == "True"
        made = asked()
        assert (made.outcome, made.reason) == ("put off", "another re-distillation of tiny is under way.")
        assert asked() == made, "left as it is, for it may be the other's"
        assert asked("tiny/1:w2").number == made.number + 1
    assert asked().outcome == "not done", "its process ended, and the lock with it"


def test_a_cause_whose_run_has_ended_begins_no_second_one(home: Home) -> None:
    from flows.redistill import consider

    done = add(home, name="tiny", cause="tiny/1:w1", outcome="promoted", reason="tiny/2 is champion", diagnosis=DISTIL)
    made = consider(report("tiny/1:w1", trigger=True))
    assert made is not None
    assert made.outcome == "not done"
    assert f"decision {done.number} was about the same cause: promoted: tiny/2 is champion" in made.reason
