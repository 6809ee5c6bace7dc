"""Decisions on disk: numbered once, one for each cause, gone on with after a kill, counted by the week."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conf.home import Home
from tasks.records.redistill import Redistillation
from tasks.redistill.decisions import (
    MONITOR,
    abandon_others,
    add,
    begun_this_week,
    claimed,
    closed_decision,
    decisions,
    folder_of,
    open_decision,
    update,
)
from tests.machine import child, kill, read_line

NOW = datetime(2026, 1, 8, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def decided(home: Home, cause: str, outcome: Any = "not done", **fields: Any) -> Redistillation:
    return add(home, name="tiny", cause=cause, outcome=outcome, reason="because", diagnosis="distil again", **fields)


def test_decisions_are_numbered_and_replaced_in_place(home: Home) -> None:
    first, second = decided(home, "a"), decided(home, "b", "running")
    assert (first.number, second.number) == (1, 2)
    done = update(home, second, outcome="promoted", run="tiny-redistill-2")
    assert decisions(home, "tiny") == [done, first]
    assert decisions(home, "other") == []
    (folder_of(home, "tiny") / "00003.json").write_text("{")
    assert decisions(home, "tiny") == [done, first], "a damaged one is passed over"
    assert decided(home, "c").number == 4


@pytest.mark.processes
def test_two_processes_never_write_the_same_number(home: Home) -> None:
    code = (
        "import sys; from pathlib import Path; from conf.home import Home; from tasks.redistill.decisions import add\n"
        "for n in range(20): add(Home(Path(sys.argv[1])), name='tiny', cause=sys.argv[2], outcome='not done', reason='r', diagnosis='d')\n"
        "print('done')"
    )
    with child(code, home.root, "a") as one, child(code, home.root, "b") as other:
        assert [read_line(one), read_line(other)] == ["done", "done"]
    assert [each.number for each in decisions(home, "tiny")] == list(range(40, 0, -1))
    assert {each.cause for each in decisions(home, "tiny")} == {"a", "b"}


def test_a_cause_is_open_until_its_run_has_ended(home: Home) -> None:
    running = decided(home, "a", "running")
    assert (open_decision([running], "a"), closed_decision([running], "a", MONITOR)) == (running, None)
    for outcome in ("failed", "refused", "waiting", "promoted"):
        ended = running.model_copy(update={"outcome": outcome})
        assert (open_decision([ended], "a"), closed_decision([ended], "a", MONITOR)) == (None, ended)
        assert closed_decision([ended], "a", "a person") == (None if outcome == "failed" else ended)
    put_off, refused = decided(home, "b", "put off"), decided(home, "c")
    assert open_decision([put_off, refused], "b") == put_off
    assert closed_decision([put_off, refused], "c", MONITOR) is None, "nothing was begun, so it may be asked for again"


def test_another_cause_ends_what_a_dead_process_left(home: Home) -> None:
    left, put_off = decided(home, "a", "running"), decided(home, "b", "put off")
    abandon_others(home, [left, put_off], "c")
    assert [each.outcome for each in decisions(home, "tiny")] == ["put off", "failed"]
    abandon_others(home, [left], "a")
    assert len(decisions(home, "tiny")) == 2


def test_what_began_by_itself_this_week_is_counted(home: Home) -> None:
    def at(days: float, outcome: Any, by: str = "monitor") -> Redistillation:
        moment = (NOW - timedelta(days=days)).isoformat()
        return decided(home, f"{days}", outcome, by=by).model_copy(update={"time": moment})

    found = [at(1, "promoted"), at(2, "failed"), at(3, "not done"), at(4, "put off"), at(8, "promoted"), at(1, "promoted", "a person")]
    assert begun_this_week(found, NOW.isoformat()) == found[:2]


@pytest.mark.processes
def test_one_process_at_a_time_and_the_kernel_frees_the_claim_of_a_killed_one(home: Home) -> None:
    code = (
        "import sys, time; from pathlib import Path; from conf.home import Home; from tasks.redistill.decisions import claimed\n"
        "with claimed(Home(Path(sys.argv[1])), 'tiny') as mine:\n    print(mine, flush=True); time.sleep(60)"
    )
    with child(code, home.root) as other:
        assert read_line(other) == "True"
        with claimed(home, "tiny") as mine:
            assert not mine
        with claimed(home, "another") as mine:
            assert mine
        kill(other)
        with claimed(home, "tiny") as mine:
            assert mine


def test_a_record_of_an_earlier_form_is_passed_over(home: Home) -> None:
    made = decided(home, "a")
    path = folder_of(home, "tiny") / "00001.json"
    path.write_text(json.dumps(made.model_dump(mode="json") | {"unheard of": 1}))
    assert decisions(home, "tiny") == []
