"""How a run ends when it does not end well: a gate that stops it, a loss that explodes, a disk that is full."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace as Helpers

import pytest


def test_a_gate_stops_the_ladder_or_warns(finished, tiny, undisturbed, helpers: Helpers):
    stopped = finished("run", tiny, "stages.two.gate.max_parameters=1000", code=3)
    assert "error: the gate stopped the ladder: two has " in stopped.err
    assert "gate.max_parameters allows at most 1,000" in stopped.err
    shown = finished.json("show")
    assert (shown["status"], [s["gate"] for s in shown["stages"]]) == ("stopped", [None, "stopped"])
    assert shown["planned"] == ["one", "two", "three"]

    warned = finished("run", tiny, "stages.two.gate.max_parameters=1000", "defaults.gate.policy=warn")
    assert set(helpers.actions(warned.err).values()) == {"reused"}
    assert "gate.max_parameters allows at most 1,000" in warned.err
    assert [s["gate"] for s in finished.json("show")["stages"]] == [None, "warned", None]
    assert finished.hashes() == undisturbed.hashes()


def test_an_exploding_loss_stops_the_stage(finished, tiny, helpers: Helpers):
    wild = ("stages.two.training.learning_rate=10", "stages.two.training.warmup=0.5", "stages.two.training.clip=1e9")
    failed = finished("run", tiny, *wild, code=1)
    error = next(line for line in failed.err.splitlines() if line.startswith("error: "))
    assert " at step " in error
    assert "learning rate " in error
    assert "Lower training.learning_rate" in error
    assert helpers.actions(failed.err) == {"teacher": "reused", "one": "reused", "two": "computed"}
    assert [path.name for path in (finished.home / "store" / "work").glob("*/step-*")], "the last good checkpoint is kept"
    assert helpers.half_written(finished.home) == []
    shown = finished.json("show")
    assert (shown["status"], shown["error"]) == ("failed", error.removeprefix("error: "))


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill a disk but for so many bytes."""
    space = os.statvfs(disk)
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(max(space.f_bavail * space.f_frsize - leave, 0)))
    return ballast


def test_a_disk_that_is_full_from_the_start(bare, tiny, small_disk, helpers: Helpers):
    full = helpers.Cli(small_disk / "home")
    ballast = fill(small_disk)
    failed = full("run", tiny, code=1)
    assert "error: " in failed.err
    assert "LADDER_HOME" in failed.err
    assert "Free some space" in failed.err
    assert failed.seconds < 60
    assert helpers.half_written(full.home) == []
    ballast.unlink()
    full("run", tiny)


def test_a_disk_that_fills_during_training(cli, tiny, small_disk, undisturbed, empty_record, helpers: Helpers):
    full = helpers.Cli(helpers.furnish(small_disk / "home", empty_record), dict(cli.env))
    ballast = fill(small_disk, leave=3 * 2**19)  # room for the data and the record, not for many checkpoints
    failed = full("run", tiny, code=1)
    assert "LADDER_HOME" in failed.err
    assert "Free some space" in failed.err
    assert "computed" in failed.err
    assert helpers.half_written(full.home) == []
    ballast.unlink()
    full("run", tiny)
    assert full.hashes() == undisturbed.hashes()
    assert helpers.half_written(full.home) == []
