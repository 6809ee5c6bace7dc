"""The index of runs says what the records say, and is made anew where it is missing, damaged or old."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from conf.home import Home
from flows.cli.show.runs import run_row
from tasks.records.run import RunRecord
from tasks.runtime.runs.run_index import short, short_runs
from tasks.runtime.runs.run_registry import all_runs, full_record, list_runs, load_run, save
from tests.factories import model_record, run_record

RUNS = 40


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    for number in range(RUNS):
        stages = tuple(model_record(name, slices={"all": {"nll": 1.0}}, identity={"a": number}) for name in ("100k", "30k"))
        started = f"2026-01-01T00:{number:02}:00+00:00"
        save(home, run_record(f"tiny-{number}", started=started, stages=stages, teacher=model_record("teacher"), environment={"cores": 2}))
    return home


def names(home: Home) -> list[str]:
    return [record.run for record in list_runs(home)]


def refuse(path: Path) -> NoReturn:
    pytest.fail(f"{path} is read although the index knows it")


def test_the_list_says_what_the_records_say_and_reads_them_once(home: Home) -> None:
    first, full = list_runs(home), all_runs(home)
    assert [record.run for record in first] == [record.run for record in full] == [f"tiny-{n}" for n in reversed(range(RUNS))]
    assert [run_row(record) for record in first] == [run_row(record) for record in full]
    again = sorted(short_runs(home, refuse), key=lambda record: record.started, reverse=True)
    assert again == first
    assert load_run(home, "tiny-7").stages[0].slices == {"all": {"nll": 1.0}}, "a run itself is read whole"


@pytest.mark.parametrize("damage", ["deleted", "torn", "of another version", "no text", "a folder"])
def test_a_missing_or_damaged_index_is_made_anew(home: Home, damage: str) -> None:
    before, index = list_runs(home), home.runs / "index.jsonl"
    whole = index.read_bytes()
    index.unlink()
    if damage == "torn":
        index.write_bytes(whole[: len(whole) // 2])
    elif damage == "of another version":
        index.write_bytes(b"1:run|status" + whole[whole.index(b"\n") :])
    elif damage == "no text":
        index.write_bytes(bytes(range(256)))
    elif damage == "a folder":
        index.mkdir()
    assert list_runs(home) == before
    if damage != "a folder":
        assert sorted(short_runs(home, refuse), key=lambda record: record.started, reverse=True) == before


def test_changes_are_seen_and_the_index_stays_small(home: Home) -> None:
    list_runs(home)
    shutil.rmtree(home.runs / "tiny-0")
    for number in range(3 * RUNS):
        record = full_record(home, "tiny-5")
        assert record is not None
        save(home, record.model_copy(update={"error": str(number)}))
        assert next(record for record in list_runs(home) if record.run == "tiny-5").error == str(number)
    assert "tiny-0" not in names(home)
    assert len((home.runs / "index.jsonl").read_bytes().splitlines()) < 4 * RUNS


def test_a_run_under_way_is_not_indexed(home: Home) -> None:
    save(home, run_record("tiny-now", status="running", started="2026-02-01T00:00:00+00:00"))
    assert (names(home)[0], list_runs(home)[0].status) == ("tiny-now", "interrupted"), "nobody holds its lock"
    assert b"tiny-now" not in (home.runs / "index.jsonl").read_bytes()


def test_a_short_record_is_never_saved(home: Home) -> None:
    with pytest.raises(AssertionError):
        save(home, short(RunRecord.model_validate(full_record(home, "tiny-1"))))


def test_a_home_without_runs(tmp_path: Path) -> None:
    assert list_runs(Home(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []
