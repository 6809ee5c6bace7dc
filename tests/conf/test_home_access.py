"""The home of another user, and a disk that cannot be written, as one message each."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import StoreError
from conf.home import Home, disk_errors, protect, require_readable
from tasks.runtime.runs.run_registry import all_runs, save
from tests.factories import run_record
from tests.machine import fill, small_disk

NOBODY = 65534


def as_nobody(act: Callable[[], object]) -> str:
    """Do something as another user, in a process of its own; returns the message of its error."""
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            act()
        except StoreError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(process, 0)
    with os.fdopen(reading) as told:
        return told.read()


@pytest.mark.processes
def test_a_home_of_another_user_is_no_empty_home(home: Home) -> None:
    home.runs.mkdir(parents=True)
    protect(home)
    for act in (lambda: all_runs(home), lambda: protect(home)):
        assert f"LADDER_HOME: {home.root} of root is closed to nobody (Permission denied). Set LADDER_HOME to" in as_nobody(act)
    home.root.chmod(0o755)
    assert as_nobody(lambda: all_runs(home)) == "", "readable"
    assert all_runs(home) == []
    require_readable(Home(home.root / "not-there"))


def write(path: Path, home: Home) -> None:
    with disk_errors(home):
        path.write_text("x")


@pytest.mark.processes
def test_writing_into_it_is_refused_with_the_owner(home: Home) -> None:
    home.root.mkdir(mode=0o755)
    told = as_nobody(lambda: write(home.root / "x", home))
    assert "of root is closed to nobody" in told
    assert "Free some space" not in told


def full(home: Home) -> None:
    with disk_errors(home):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_asks_for_space(home: Home) -> None:
    with pytest.raises(StoreError, match="Free some space"):
        full(home)


@pytest.mark.processes
def test_a_record_survives_a_disk_that_is_full_or_read_only(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        home = Home(disk / "home")
        save(home, run_record("tiny-1"))
        ballast = fill(disk)
        with pytest.raises(StoreError, match=r"No space left on device.*0 MiB are free there\. Free some space"):
            save(home, run_record("tiny-1", note="x" * 10_000))
        assert (all_runs(home), list(home.runs.glob("*/.*"))) == ([run_record("tiny-1")], [])
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StoreError, match=r"is closed to root .*Read-only file system"):
            save(home, run_record("tiny-1", note="x"))
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        save(home, run_record("tiny-1", note="x"))
        assert all_runs(home)[0].note == "x"
