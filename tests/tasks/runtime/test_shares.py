"""Work shared among processes: errors are told, nobody outlives the run, nothing stays on the disk."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from conf.errors import LadderError, UserError
from conf.home import Home
from tasks.lifecycle.clean import clean
from tasks.runtime.shares import Share, in_shares
from tasks.runtime.stage_inputs import StageInputs
from tests.factories import write_functions
from tests.tasks.evaluation.test_shares import in_home


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_functions(tmp_path)
    return tmp_path


def share_refuses(inputs: StageInputs, share: Share) -> int:
    if share.number:
        raise UserError("share 1 refuses")
    return 0


def share_dies(inputs: StageInputs, share: Share) -> int:
    if share.number:
        raise RuntimeError("it fell")
    return share_sleeps(inputs, share)


def share_sleeps(inputs: StageInputs, share: Share) -> int:
    time.sleep(3600)
    return share.number


@pytest.mark.slow
def test_an_error_is_told_and_a_dead_process_ends_the_others(folder: Path) -> None:
    inputs = in_home(folder, "errors", 2)
    with pytest.raises(UserError, match="share 1 refuses"):
        in_shares(share_refuses, inputs, 2, work="evaluation")
    began = time.monotonic()
    with pytest.raises(LadderError, match=r"^process 1 of the evaluation died: .*it fell"):
        in_shares(share_dies, inputs, 2, work="evaluation")
    assert time.monotonic() - began < 60, "the other one sleeps for an hour"


RUN = """
import sys
from pathlib import Path
from tests.tasks.runtime.test_shares import in_home, in_shares, share_sleeps
in_shares(share_sleeps, in_home(Path(sys.argv[1]), "killed", 2), 2, work="evaluation")
"""


@pytest.mark.slow
def test_processes_end_when_their_run_is_killed(folder: Path) -> None:
    def shares() -> list[psutil.Process]:
        return [
            each for each in psutil.process_iter(["cmdline"]) if f"{folder}/killed/store/writing/" in " ".join(each.info["cmdline"] or [])
        ]

    def wait_until(number: int) -> None:
        until = time.monotonic() + 60
        while len(shares()) != number:
            assert time.monotonic() < until, number
            time.sleep(0.1)

    run = subprocess.Popen([sys.executable, "-c", RUN, str(folder)])
    wait_until(2)
    time.sleep(2)  # each has read its order by then, and looks for its run
    home = Home(folder / "killed")
    assert clean(home, 0).freed == (), "it is in use"
    run.kill()
    run.wait()
    wait_until(0)
    (piece,) = clean(home, 0).freed
    assert (piece.kind, piece.why) == ("writing", "left by a process that was killed")
    assert not list((home.store / "writing").iterdir())
