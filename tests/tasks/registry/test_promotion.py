"""The alias of the champion: moved once, by evidence, whatever interrupts it; rolled back."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conf.errors import PromotionRefused, RecordUnavailable, UserError
from conf.home import Home
from tasks.records.promotion import Judgement
from tasks.records.run import RunRecord
from tasks.registry import promotion as moves
from tasks.registry.candidates import registry_of, rivals, students_to_register
from tasks.registry.history import history, keep
from tasks.registry.promotion import finish_interrupted, promote, refuse, rollback
from tasks.registry.versions import find_version, list_versions, register
from tasks.tracking.null import NullTracker
from tasks.tracking.tracker import Tracker, connect
from tasks.tracking.versions import CLAIM, alias_of
from tests.factories import ladder_of_file, run_record
from tests.tasks.registry.conftest import Ran

pytestmark = pytest.mark.thorough

TRAINING = {"steps": 1, "batch_size": 1, "learning_rate": 1e-3}
STAGES = {
    "teacher": {"source": "checkpoint", "path": "x"},
    "stages": [{"name": "small", "student": {"parameters": 1000}, "training": TRAINING}],
}


def judgement(*reasons: str) -> Judgement:
    return Judgement(
        metric="accuracy", champion=0.9, challenger=0.92, difference=0.02, low=0.01, high=0.03, delta=0.01, rows=500, documents=500,
        data="rows", data_fingerprint="d", reasons=reasons,
    )  # fmt: skip


@pytest.fixture
def three(home: Home, tracker: Tracker, ran: Ran) -> list[RunRecord]:
    """Three registered versions, of the runs a, b and c."""
    records = [ran(name, name.encode(), teacher=False) for name in "abc"]
    for record in records:
        register(tracker, home, record, record.stages[-1])
    return records


def make_champion(tracker: Tracker, home: Home, number: int, previous: int | None, **more: Any) -> None:
    promote(tracker, home, find_version(tracker, home, f"tiny/{number}"), previous and str(previous), judgement(), **more)


def aliases(tracker: Tracker) -> dict[str, str]:
    return {alias: entry.version for entry in list_versions(tracker, "tiny") for alias in entry.aliases}


@pytest.mark.usefixtures("three")
def test_champions_follow_each_other_and_rollbacks_go_back_one_by_one(home: Home, tracker: Tracker) -> None:
    assert aliases(tracker) == {"challenger": "3"}
    make_champion(tracker, home, 1, None, by="Ann", reason="first")
    make_champion(tracker, home, 2, 1)
    make_champion(tracker, home, 3, 2)
    assert aliases(tracker) == {"champion": "3", "previous": "2"}  # what was challenger is champion
    rollback(tracker, home, "tiny", by="Bo", reason="slow")
    assert aliases(tracker) == {"champion": "2", "previous": "1"}
    rollback(tracker, home, "tiny")
    assert aliases(tracker) == {"champion": "1"}
    with pytest.raises(UserError, match="an earlier champion"):
        rollback(tracker, home, "tiny")
    rollback(tracker, home, "tiny", "3")
    assert aliases(tracker) == {"champion": "3", "previous": "1"}
    entries = history(home, "tiny")
    assert [(number, each.kind, each.version, each.state) for number, each in entries] == [
        (1, "promote", "1", "done"),
        (2, "promote", "2", "done"),
        (3, "promote", "3", "done"),
        (4, "rollback", "2", "done"),
        (5, "rollback", "1", "done"),
        (6, "rollback", "3", "done"),
    ]
    assert (entries[0].promotion.by, entries[0].promotion.reason, entries[3].promotion.reason) == ("Ann", "first", "slow")
    tags = {entry.version: entry.tags for entry in list_versions(tracker, "tiny")}
    assert "by Ann: first" in tags["1"]["ladder.promotion"] or "champion again" in tags["1"]["ladder.promotion"]
    assert "by Bo: slow" in tags["3"]["ladder.rolled_back"]
    run_id = str(tracker.client.get_model_version("tiny", "2").run_id)
    assert tracker.client.get_run(run_id).data.metrics["promotion/difference_low"] == 0.01


@pytest.mark.usefixtures("three")
def test_reasons_refuse_a_challenger_and_force_is_recorded(home: Home, tracker: Tracker) -> None:
    make_champion(tracker, home, 1, None)
    version, against = find_version(tracker, home, "tiny/2"), judgement("it is slow")
    with pytest.raises(PromotionRefused, match=r"tiny/2 was not promoted: it is slow\. The champion stays tiny/1\."):
        promote(tracker, home, version, "1", against)
    error = refuse(tracker, home, version, "1", against)
    assert error.exit_code == 3
    assert aliases(tracker)["champion"] == "1"
    assert "it is slow" in next(entry for entry in list_versions(tracker, "tiny") if entry.version == "2").tags["ladder.judgement"]
    promote(tracker, home, version, "1", against, forced=True, reason="the demo")
    last = history(home, "tiny")[-1].promotion
    assert (last.version, last.forced, last.reason, last.judgement) == ("2", True, "the demo", against)


@pytest.mark.usefixtures("three")
def test_of_two_promotions_at_once_one_wins(home: Home, tracker: Tracker, tmp_path: Path) -> None:
    make_champion(tracker, home, 1, None)
    second, third = (find_version(tracker, home, f"tiny/{number}") for number in (2, 3))
    promote(tracker, home, second, "1", judgement())
    with pytest.raises(PromotionRefused, match=r"tiny/2 is champion now\. Run the same command again"):
        promote(tracker, home, third, "1", judgement())  # compared with the champion that was
    other = Home(tmp_path / "other")  # another home on the same server, in the middle of its move
    tracker.client.set_registered_model_tag("tiny", f"{CLAIM}other", str(time.time()))
    with pytest.raises(PromotionRefused, match="another process is moving the alias"):
        promote(tracker, other, third, "2", judgement())
    assert alias_of(tracker, "tiny") == "2"
    tracker.client.set_registered_model_tag("tiny", f"{CLAIM}other", "1.0")  # left by a process that died long ago
    promote(tracker, other, third, "2", judgement())
    assert alias_of(tracker, "tiny") == "3"
    assert not [tag for tag in tracker.client.get_registered_model("tiny").tags if tag.startswith(CLAIM)]


@pytest.mark.processes
@pytest.mark.usefixtures("three")
def test_promotions_of_several_homes_at_once_never_both_win(home: Home, tracker: Tracker, tmp_path: Path) -> None:
    make_champion(tracker, home, 1, None)
    versions = [find_version(tracker, home, f"tiny/{number}") for number in (2, 3)]
    children = []
    for version in versions:
        child = os.fork()
        if child == 0:  # each home has a lock of its own: only MLflow is between them
            try:
                promote(connect(home), Home(tmp_path / version.label.replace("/", "-")), version, "1", judgement())
                os._exit(0)
            except PromotionRefused:
                os._exit(3)
            finally:
                os._exit(1)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(codes) in ([0, 3], [3, 3]), codes
    winner = [version.version for version, code in zip(versions, codes, strict=True) if code == 0]
    assert alias_of(tracker, "tiny") == (winner[0] if winner else "1")


def killed(act: Callable[[], object]) -> None:
    """Run a function in a child process that ends as by kill -9."""
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(9)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.processes
@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("moved", [False, True])
def test_a_kill_in_the_middle_leaves_the_old_champion_or_a_whole_new_one(
    home: Home, tracker: Tracker, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    make_champion(tracker, home, 1, None)
    version, real = find_version(tracker, home, "tiny/2"), moves.move_alias

    def die(own: Tracker, name: str, alias: str, number: str | None) -> None:
        if moved:
            real(own, name, alias, number)
        os.kill(os.getpid(), signal.SIGKILL)

    def child() -> None:
        monkeypatch.setattr(moves, "move_alias", die)
        promote(connect(home), home, version, "1", judgement())

    killed(child)
    assert alias_of(tracker, "tiny") == ("2" if moved else "1")
    assert [each.state for _, each in history(home, "tiny")] == ["done", "prepared"]
    finish_interrupted(tracker, home, "tiny")
    assert [each.state for _, each in history(home, "tiny")] == ["done", "done" if moved else "abandoned"]
    assert aliases(tracker).get("previous") == ("1" if moved else None)
    if not moved:
        tracker.client.set_registered_model_tag("tiny", "irrelevant", "x")
        for tag in [tag for tag in tracker.client.get_registered_model("tiny").tags if tag.startswith(CLAIM)]:
            tracker.client.set_registered_model_tag("tiny", tag, "1.0")  # two minutes later
        make_champion(tracker, home, 2, 1)
        assert aliases(tracker)["champion"] == "2"


@pytest.mark.usefixtures("three")
def test_no_alias_goes_on_a_version_whose_bytes_are_gone(home: Home, tracker: Tracker, three: list[RunRecord]) -> None:
    make_champion(tracker, home, 1, None)
    make_champion(tracker, home, 2, 1)
    shutil.rmtree(three[0].stages[-1].folder)
    shutil.rmtree(home.mlflow / "artifacts")
    with pytest.raises(UserError, match="in the store or in MLflow"):
        rollback(tracker, home, "tiny")
    assert aliases(tracker)["champion"] == "2"


def test_a_run_without_a_version_is_registered_when_it_is_promoted(home: Home, tracker: Tracker, ran: Ran) -> None:
    ran("a", b"one", teacher=False)
    found = rivals(tracker, home, "a")
    assert (found.challenger.label, found.champion, found.previous) == ("tiny/1", None, None)
    promote(tracker, home, found.challenger, None, judgement())
    again = rivals(tracker, home, None)  # the last run
    assert again.previous == again.challenger.version == "1"
    ran("b", b"two", teacher=False, status="stopped")
    with pytest.raises(UserError, match="a run that is done; it is stopped"):
        rivals(tracker, home, "b")
    assert rivals(tracker, home, "b", register_anyway=True).challenger.label == "tiny/2"


def test_a_champion_whose_bytes_are_gone_is_told(home: Home, tracker: Tracker, ran: Ran) -> None:
    first = ran("a", b"one", teacher=False)
    promote(tracker, home, rivals(tracker, home, "a").challenger, None, judgement())
    shutil.rmtree(first.stages[-1].folder)
    shutil.rmtree(home.mlflow / "artifacts")
    ran("b", b"two", teacher=False)
    found = rivals(tracker, home, "b")
    assert (found.champion, found.previous) == (None, "1")
    assert "tiny/1" in str(found.missing)
    assert "a version whose bytes are in the store or in MLflow" in str(found.missing)


@pytest.mark.usefixtures("three")
def test_faults_of_names_are_told(home: Home, tracker: Tracker) -> None:
    with pytest.raises(UserError, match="a model with a champion"):
        rollback(tracker, home, "tiny")
    make_champion(tracker, home, 1, None)
    for to in ("1", "9"):
        with pytest.raises(UserError, match="another version than the champion 1: 3, 2"):
            rollback(tracker, home, "tiny", to)
    with pytest.raises(UserError, match="mlflow, for versions and promotions"):
        registry_of(NullTracker("tracking: off"))


def test_a_registry_that_is_away_is_told_in_a_sentence(home: Home, tracker: Tracker, ran: Ran) -> None:
    record = ran("a", b"one")
    away = Tracker(home, "http://127.0.0.1:9", type(tracker.client)("http://127.0.0.1:9"))
    for ask in (lambda: list_versions(away, "tiny"), lambda: register(away, home, record, record.stages[-1])):
        with pytest.raises(RecordUnavailable, match=r"MLflow at http://127\.0\.0\.1:9 did not take it: connection refused"):
            ask()


def test_a_damaged_record_of_a_promotion_is_named_and_left_out(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    (home.promotions / "tiny").mkdir(parents=True)
    (home.promotions / "tiny" / "1.json").write_text("{")
    assert history(home, "tiny") == []
    assert "is no record of a promotion" in caplog.text


@pytest.mark.parametrize(
    ("changes", "versions", "expected"),
    [
        ({}, "last", ["small"]),
        ({}, "all", ["large", "small"]),
        ({}, "none", []),
        ({"status": "stopped"}, "last", []),
        ({"only": "small"}, "last", []),
        ({"gate": "warned"}, "last", []),
        ({"gate": "approved"}, "last", ["small"]),
    ],
)
def test_a_finished_ladder_registers_what_is_asked(changes: dict[str, str], versions: str, expected: list[str]) -> None:
    from tests.factories import model_record

    gate = {"gate": changes.pop("gate")} if "gate" in changes else {}
    record = run_record("a", model_record("teacher"), model_record("large"), model_record("small", **gate), **changes)
    ladder = ladder_of_file(**STAGES, promotion={"versions": versions})
    assert [model.name for model in students_to_register(record, ladder)] == expected


def test_numbers_of_the_history_go_on_after_a_gap(home: Home) -> None:
    from tasks.records.promotion import Promotion

    entry = Promotion(name="tiny", version="1", previous=None, time="2026-01-01T00:00:00+00:00", mlflow_uri="x")
    assert [keep(home, entry).number for _ in range(2)] == [1, 2]
    (home.promotions / "tiny" / "1.json").unlink()
    assert keep(home, entry).number == 3
