"""A home is its owner's alone: modes of what is written, an older home, another user of the machine."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool

import pytest

from conf.atomic import write_atomic
from conf.errors import UserError
from conf.home import Home, protect
from conf.login import login, login_file
from conf.served import Served, announce, lock_of

NOBODY = 65534


@pytest.fixture(autouse=True)
def usual_umask(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("LADDER_GROUP_READS", raising=False)
    before = os.umask(0o022)
    yield
    os.umask(before)


def fill(home: Home) -> None:
    for folder in (home.store / "stage" / "x", home.runs / "run-1", home.mlflow, home.prefect):
        folder.mkdir(parents=True)
        (folder / "record.json").write_text("{}")
    write_atomic(home.runs / "run-1" / "report.html", "secret")
    lock_of(home).acquire()
    announce(home, Served(1, "a", "b", None, True, True))
    login(home)


def modes(home: Home) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in (home.root, *home.root.rglob("*"))}


def test_everything_is_the_owners_alone(home: Home) -> None:
    protect(home)
    fill(home)
    assert modes(home) <= {0o700, 0o600}


def test_an_older_home_is_closed_and_a_group_may_be_let_in(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.runs / "old").mkdir(parents=True)
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o755
    protect(home)
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    monkeypatch.setenv("LADDER_GROUP_READS", "1")
    protect(home)
    fill(home)
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o750
    assert stat.S_IMODE((home.runs / "run-1" / "record.json").stat().st_mode) == 0o640
    assert stat.S_IMODE(login_file(home).stat().st_mode) == 0o600
    monkeypatch.delenv("LADDER_GROUP_READS")
    protect(home)
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700


@pytest.mark.processes
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv, to become another user")
def test_another_user_of_the_machine_reads_nothing(home: Home) -> None:
    (home.root.parent / "open.txt").write_text("open")
    (home.runs / "old").mkdir(parents=True)  # of an earlier version, open to all
    (home.runs / "old" / "record.json").write_text("{}")
    protect(home)
    fill(home)
    script = (
        "import os, sys\n"
        "print(open(sys.argv[1]).read())\n"
        "for path in sys.argv[2:]:\n"
        "    for way in (os.listdir, open, lambda path: open(path + '.new', 'w'), lambda path: os.chmod(path, 0o777)):\n"
        "        try:\n"
        "            way(path)\n"
        "        except PermissionError:\n"
        "            continue\n"
        "        print('reached', path)\n"
        "for name in os.listdir('/proc'):\n"
        "    if name.isdecimal() and os.stat('/proc/' + name).st_uid == 0:\n"
        "        try:\n"
        "            print('reached', open(f'/proc/{name}/environ').read())\n"
        "        except (PermissionError, FileNotFoundError, ProcessLookupError):\n"
        "            pass\n"
    )
    every = [str(path) for path in (home.root, *home.root.rglob("*"))]
    assert len(every) > 12
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "/usr/bin/env", "python3"]
    if subprocess.run([*as_nobody, "-c", ""], capture_output=True, check=False).returncode:
        as_nobody[-2:] = [sys.executable]
    done = subprocess.run(
        [*as_nobody, "-c", script, str(home.root.parent / "open.txt"), *every], capture_output=True, text=True, check=False
    )
    assert done.stdout == "open\n", done.stdout + done.stderr


def test_the_password_is_long_made_once_and_kept(home: Home) -> None:
    with ThreadPool(8) as pool:
        found = pool.map(lambda _: login(home), range(16))
    assert len(set(found)) == 1
    user, _, password = found[0].partition(":")
    assert (user, len(password)) == ("ladder", 43)
    assert [path.name for path in home.root.iterdir()] == ["login"]
    login_file(home).chmod(0o644)
    assert login(home) == found[0]
    assert stat.S_IMODE(login_file(home).stat().st_mode) == 0o600
    assert login(Home(home.root / "other")) != found[0]


@pytest.mark.parametrize("content", ["", "\n", "no-colon", ":", "user:", "a b:c", "two\nlines:x"])
def test_a_file_without_a_password_is_refused_and_not_shown(home: Home, content: str) -> None:
    login(home)
    login_file(home).write_text(content)
    with pytest.raises(UserError, match=r"\(not shown\).*Remove the file to have a new one made"):
        login(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file to another user")
def test_a_password_that_another_user_has_put_there_is_refused(home: Home) -> None:
    login(home)
    os.chown(login_file(home), NOBODY, NOBODY)
    with pytest.raises(UserError, match="a file that belongs to you"):
        login(home)
