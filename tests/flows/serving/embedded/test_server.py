"""The embedded server is shared by processes of a home, and ends by itself; a slow start is told from a stuck one."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from conf.errors import UserError
from conf.served import EMBEDDED_API, configured_api
from flows.serving import elapsed
from flows.serving.elapsed import Patience
from flows.serving.embedded.server import stay_seconds
from tests.flows.driver import clean_environment, wait_for

USE = """
import json
from conf.home import home
from flows.serving.embedded.server import embedded_server
from flows.serving.environment import prepare_environment
from tasks.runtime.logs import show_logs
show_logs()
prepare_environment(home())
server = embedded_server(home())
server.begin()
server.wait()
print(server.address.read_text())
"""
WATCH = """
import sys, time
from pathlib import Path
from flows.serving.embedded.users_watchdog import end_without_users
end_without_users(Path(sys.argv[1]), float(sys.argv[2]))
"""


@pytest.mark.slow
def test_processes_of_a_home_share_a_server_that_ends_by_itself(tmp_path: Path) -> None:
    def use(**more: str) -> tuple[dict[str, str | int], str]:
        env = clean_environment(LADDER_HOME=str(tmp_path / "home"), **more)
        done = subprocess.run([sys.executable, "-c", USE], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
        return json.loads(done.stdout), done.stderr

    first, said = use(LADDER_SERVER_SECONDS="4")
    assert "starting Prefect's embedded server" in said
    server = psutil.Process(int(first["pid"]))
    second, said = use(LADDER_SERVER_SECONDS="4")
    assert second == first
    assert "starting" not in said
    wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, "its end", 60)
    assert (tmp_path / "home" / "prefect" / "prefect.db").is_file()


@pytest.mark.parametrize("end", ["unused", "without a home"])
def test_a_server_ends_when_nobody_has_used_it_for_a_while(tmp_path: Path, end: str) -> None:
    users = tmp_path / "locks" / "users"
    users.parent.mkdir()
    with users.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        stay = "0" if end == "unused" else "600"
        command = [sys.executable, "-c", WATCH, str(users), stay]
        process = subprocess.Popen(command, env=clean_environment(), start_new_session=True)
        time.sleep(2)
        assert process.poll() is None, "it is used"
    if end == "without a home":
        time.sleep(1)
        assert process.poll() is None, "it stays for a while"
        shutil.rmtree(users.parent)
    assert process.wait(30) < 0


def test_a_slow_start_is_not_a_stuck_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elapsed, "SAMPLE_SECONDS", 0.1)
    monkeypatch.setattr(elapsed, "LEAST_WORK", 0.02)  # a process gets so much in two seconds on the busiest machine
    busy, idle = (subprocess.Popen([sys.executable, "-c", code]) for code in ("while True: pass", "import time; time.sleep(60)"))
    try:
        works, waits, unknown = Patience(lambda: [busy.pid], 2), Patience(lambda: [idle.pid], 2), Patience(list, 0)
        until = time.monotonic() + 30
        while not waits.is_over():
            assert not works.is_over()
            assert not unknown.is_over(), "another process starts it, which has patience of its own"
            assert time.monotonic() < until
            time.sleep(0.05)
        assert float(works.work.split()[0]) > 0
    finally:
        for process in (busy, idle):
            process.kill()
            process.wait()


def test_an_embedded_server_is_not_a_configured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert configured_api() == "http://127.0.0.1:1/api"
    monkeypatch.setenv(EMBEDDED_API, "http://127.0.0.1:1/api")
    assert configured_api() is None


@pytest.mark.parametrize("given", ["soon", "-1", "nan", "1e9"])
def test_a_wrong_time_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("LADDER_SERVER_SECONDS", given)
    with pytest.raises(UserError, match="LADDER_SERVER_SECONDS"):
        stay_seconds()
