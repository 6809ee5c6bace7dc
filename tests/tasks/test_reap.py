"""What a dead process left behind is found by its locks, and costs nothing where there is nothing. The rest is in flows/test_crash.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conf.home import Home
from tasks import reap
from tasks.reap import attempt_of, restart
from tasks.records import RunRecord
from tasks.runs import DIED, all_runs, save, unfinished

ROOT = Path(__file__).parents[2]
ALIVE = """
import sys, time
from pathlib import Path
from conf.home import Home
from tasks.reap import claim
from tasks.records import RunRecord
from tasks.runs import RunLock, save
home, record = Home(Path(sys.argv[1])), RunRecord.model_validate_json(sys.argv[2])
claim(home, record.prefect_run_id)
claim(home, record.prefect_run_id)  # a flow that is retried in its process
lock = RunLock(home, record.run)
lock.take()
save(home, record)
print("alive", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def running(home: Home, **changed: object) -> RunRecord:
    plain: dict[str, object] = {
        "run": "tiny-1",
        "ladder": "tiny",
        "status": "running",
        "settings_hash": "s" * 64,
        "source": "tiny",
        "started": "2026-01-01T00:00:00+00:00",
        "pid": os.getpid(),
        "folder": str(home.runs / "tiny-1"),
        "planned": ("a", "b"),
        "prefect_run_id": str(uuid.uuid4()),
    }
    return RunRecord.model_validate({**plain, **changed})


@contextmanager
def run(home: Home, record: RunRecord) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", ALIVE, str(home.root), record.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "alive\n"
            yield process
        finally:
            process.kill()


def test_a_living_run_is_left_alone_and_a_dead_one_is_written_down_once(home: Home) -> None:
    record = running(home)
    with run(home, record) as process:
        assert reap.reap(home) == []
        assert all_runs(home)[0].status == "running"
        process.send_signal(signal.SIGKILL)
        process.wait()
        (dead,) = reap.reap(home)
    assert (dead.run, dead.status, dead.error) == ("tiny-1", "interrupted", DIED)
    assert '"status": "interrupted"' in (home.runs / "tiny-1" / "record.json").read_text()
    assert reap.reap(home) == []
    assert unfinished(home, record.settings_hash, None, False) == dead


def test_a_flow_run_that_its_server_could_not_be_told_of_waits(home: Home) -> None:
    record = running(home)
    with run(home, record):
        pass
    assert len(reap.reap(home)) == 1
    assert [path.name for path in home.locks.glob("flow-*")] == [f"flow-{record.prefect_run_id}.lock"]


def test_it_costs_next_to_nothing_where_nothing_has_died(home: Home) -> None:
    for number in range(100):
        save(home, running(home, run=f"tiny-{number}", status="done"))
    began = time.monotonic()
    assert reap.reap(home) == []
    assert time.monotonic() - began < 1.0
    assert not home.locks.exists(), "it asks for no lock, and no server"


def test_attempts_are_counted_by_the_tag_of_the_restart() -> None:
    assert attempt_of([]) == attempt_of({"ladder:tiny", "restart:x"}) == 1
    assert attempt_of(["restart:1", "ladder:tiny"]) == 2
    assert attempt_of(["restart:1", "restart:12"]) == 13


@pytest.mark.parametrize(("restarts", "attempt"), [(0, 1), (2, 3)])
def test_no_more_restarts_than_the_setting_says(home: Home, restarts: int, attempt: int) -> None:
    """It asks the server for nothing then, which would not answer here."""
    from conf.load import load, to_yaml

    record = running(home, attempt=attempt)
    Path(record.folder).mkdir(parents=True)
    (Path(record.folder) / "ladder.yaml").write_text(to_yaml(load("digits", [f"compute.restarts={restarts}"]).ladder))
    assert restart(record) is None


def test_a_run_without_settings_is_not_restarted(home: Home) -> None:
    assert restart(running(home)) is None
