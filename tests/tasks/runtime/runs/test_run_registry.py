"""Records of runs are never half-written, and a dead run shows as interrupted."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.home import Home
from flows.cli.show.runs import run_row, runs_text, unreadable_row
from tasks.records.run import RunRecord
from tasks.runtime.runs.run_lock import RunLock
from tasks.runtime.runs.run_registry import (
    Context,
    all_runs,
    load_run,
    new_name,
    now,
    original_mlflow_run,
    save,
    unfinished,
    unreadable_runs,
)
from tests.factories import model_record, run_record
from tests.machine import child, kill, read_line

ROOT = Path(__file__).parents[4]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


ALIVE = """
import sys, time
from pathlib import Path
from conf.home import Home
from tasks.records.run import RunRecord
from tasks.runtime.runs.run_lock import RunLock
from tasks.runtime.runs.run_registry import save
home, record = Home(Path(sys.argv[1])), RunRecord.model_validate_json(sys.argv[2])
lock = RunLock(home, record.run)
print("alive" if lock.take() else "taken", flush=True)
save(home, record)
print("saved", flush=True)
time.sleep(60)
"""
SAVING = """
import sys
from pathlib import Path
from conf.home import Home
from tasks.records.run import RunRecord
from tasks.runtime.runs.run_registry import save
home, record = Home(Path(sys.argv[1])), RunRecord.model_validate_json(sys.argv[2])
save(home, record)
print("saved", flush=True)
number = 0
while True:
    number += 1
    save(home, record.model_copy(update={"error": "x" * (number % 5000)}))
"""


class TestSaving:
    def test_what_is_saved_is_read(self, home: Home) -> None:
        record = run_record(stages=(model_record("100k"),), teacher=model_record("teacher"), error="why", seconds=1.5)
        save(home, record)
        assert load_run(home, "tiny-1") == record
        assert [path.name for path in (home.runs / "tiny-1").iterdir()] == ["record.json"]

    @pytest.mark.processes
    def test_a_kill_never_leaves_half_a_record(self, home: Home) -> None:
        chance = random.Random(0)
        with child(SAVING, home.root, run_record().model_dump_json()) as process:
            assert read_line(process) == "saved"
            for _ in range(200):  # read while it is being written
                RunRecord.model_validate_json((home.runs / "tiny-1" / "record.json").read_text())
            time.sleep(chance.random() / 5)
            kill(process)
            assert load_run(home, "tiny-1").run == "tiny-1"

    def test_a_foreign_or_broken_record_hides_no_other(self, home: Home) -> None:
        save(home, run_record())
        whole = run_record().model_dump_json()
        broken = {
            "broken": b"{",
            "bytes": b"\xff\xfe",
            "deep": b"[" * 100_000,
            "empty": b"",
            "older": b'{"run": "older", "unknown": 1}',
            "other": whole.encode(),
            "time": whole.replace("tiny-1", "time").replace("2026-01-01T", "26-1-1 ").encode(),
        }
        for name, content in broken.items():
            (home.runs / name).mkdir()
            (home.runs / name / "record.json").write_bytes(content)
        assert [record.run for record in all_runs(home)] == ["tiny-1"]
        damaged = unreadable_runs(home, all_runs(home))
        assert [run.run for run in damaged] == list(broken)
        assert damaged[5].reason == "it is the record of another run, tiny-1"
        with pytest.raises(UserError, match=r"RUN: got 'older'; .*other version of Ladder \(.*\): restore it, or move its folder away"):
            load_run(home, "older")
        assert all(row.keys() == run_row(run_record()).keys() for row in map(unreadable_row, damaged))
        text = runs_text([*map(run_row, all_runs(home)), *map(unreadable_row, damaged)])
        assert "tiny-1" in text
        for name in broken:
            assert f"{name}: unreadable\n    {home.runs / name / 'record.json'}: " in text


class TestLooking:
    def test_the_newest_first(self, home: Home) -> None:
        for number, hour in ((1, 5), (2, 9), (3, 7)):
            save(home, run_record(f"tiny-{number}", started=f"2026-01-01T0{hour}:00:00+00:00"))
        assert [record.run for record in all_runs(home)] == ["tiny-2", "tiny-3", "tiny-1"]
        assert load_run(home).run == "tiny-2"
        assert load_run(home, "tiny-3").run == "tiny-3"

    def test_nothing_ran_yet(self, home: Home) -> None:
        with pytest.raises(UserError, match=r"LADDER_HOME: got .* allowed: a home in which something ran\. Run `ladder run digits` first"):
            load_run(home)

    def test_an_unknown_run(self, home: Home) -> None:
        save(home, run_record())
        with pytest.raises(UserError, match=r"RUN: got 'tiny-2'; .* Did you mean 'tiny-1'\? `ladder runs` shows them"):
            load_run(home, "tiny-2")

    def test_names_of_runs_differ_where_a_list_cuts_them(self, home: Home) -> None:
        names = {new_name(home, "tiny")[:8] for _ in range(20)}
        assert len(names) > 15
        assert all(name.startswith("tiny-") for name in names)

    def test_the_time_is_utc(self) -> None:
        assert now().endswith("+00:00")


class TestDeadRuns:
    @pytest.mark.processes
    def test_a_run_is_running_while_its_process_lives_and_interrupted_once_it_is_killed(self, home: Home) -> None:
        with child(ALIVE, home.root, run_record(status="running").model_dump_json()) as process:
            assert (read_line(process), read_line(process)) == ("alive", "saved")
            assert load_run(home, "tiny-1").status == "running"
            assert not RunLock(home, "tiny-1").take()
            assert unfinished(home, "s" * 64, None, False) is None
            kill(process)
            seen = load_run(home, "tiny-1")
            assert (seen.status, seen.error) == ("interrupted", "the process ended without recording its end")
            found = unfinished(home, "s" * 64, None, False)
            assert found is not None
            assert found.run == "tiny-1"

    def test_the_lock_is_taken_once(self, home: Home) -> None:
        first, second = RunLock(home, "x"), RunLock(home, "x")
        assert first.take()
        assert not second.take()
        first.release()
        assert second.take()
        second.release()

    def test_looking_does_not_keep_the_lock(self, home: Home) -> None:
        save(home, run_record(status="running"))
        for _ in range(2):
            assert load_run(home).status == "interrupted"
        lock = RunLock(home, "tiny-1")
        assert lock.take()
        lock.release()


class TestUnfinished:
    @pytest.mark.parametrize(
        ("settings", "start_at", "fresh"),
        [("t" * 64, None, False), ("s" * 64, "a", False), ("s" * 64, None, True)],
        ids=["settings", "start", "fresh"],
    )
    def test_another_command_continues_nothing(self, home: Home, settings: str, start_at: str | None, fresh: bool) -> None:
        save(home, run_record(status="interrupted"))
        assert unfinished(home, settings, start_at, fresh) is None
        assert unfinished(home, "s" * 64, None, False) is not None

    @pytest.mark.parametrize("status", ["done", "failed", "stopped"])
    def test_what_ended_is_not_continued(self, home: Home, status: str) -> None:
        save(home, run_record(status=status))
        assert unfinished(home, "s" * 64, None, False) is None

    def test_only_the_newest_counts(self, home: Home) -> None:
        save(home, run_record("tiny-1", status="interrupted"))
        save(home, run_record("tiny-2", status="done", started="2026-01-02T00:00:00+00:00"))
        assert unfinished(home, "s" * 64, None, False) is None


def test_a_reused_model_leads_to_the_run_that_made_it(home: Home) -> None:
    made = model_record("100k", mlflow_run_id="mlflow-1")
    save(home, run_record(stages=(made,)))
    assert original_mlflow_run(home, model_record("100k", reused=True, reused_from="tiny-1")) == "mlflow-1"
    assert original_mlflow_run(home, model_record("100k", reused=True, reused_from="tiny-1", fingerprint="0" * 64)) is None
    assert original_mlflow_run(home, model_record("100k", reused=True, reused_from="gone")) is None


def test_a_context_is_plain_json() -> None:
    context = Context(run="r", ladder="tiny", home="/h", base="/b", kept=("teacher",))
    assert Context.model_validate_json(context.model_dump_json()) == context
    assert context.made == {"run": "r", "ladder": "tiny"}
    assert context.paths == Home(Path("/h"))
