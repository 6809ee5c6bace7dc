"""Runs that end badly: stopped by a gate, a diverging loss, a full disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.driver import Cli, actions, half_written, newest_checkpoint, wait_for
from tests.machine import fill, small_disk


@pytest.mark.slow
def test_a_gate_stops_the_ladder_or_warns(finished, tiny, undisturbed):
    stopped = finished("run", tiny, "stages.two.gate.max_parameters=1000", code=3)
    assert "error: the gate stopped the ladder: two has " in stopped.err
    assert "gate.max_parameters allows at most 1,000" in stopped.err
    shown = finished.json("show")
    assert (shown["status"], [s["gate"] for s in shown["stages"]]) == ("stopped", [None, "stopped"])
    assert shown["planned"] == ["one", "two", "three"]

    warned = finished("run", tiny, "stages.two.gate.max_parameters=1000", "defaults.gate.policy=warn")
    assert set(actions(warned.err).values()) == {"reused"}
    assert "gate.max_parameters allows at most 1,000" in warned.err
    assert [s["gate"] for s in finished.json("show")["stages"]] == [None, "warned", None]
    assert finished.hashes() == undisturbed.hashes()


@pytest.mark.slow
def test_an_exploding_loss_stops_the_stage(finished, tiny):
    wild = ("stages.two.training.learning_rate=10", "stages.two.training.warmup=0.9", "stages.two.training.checkpoint_every=1")
    failed = finished("run", tiny, *wild, code=1)
    error = next(line for line in failed.err.splitlines() if line.startswith("error: "))
    assert " at step " in error
    assert "learning rate " in error
    assert "Lower training.learning_rate" in error
    assert actions(failed.err) == {"teacher": "reused", "one": "reused", "two": "computed"}
    assert [path.name for path in (finished.home / "store" / "checkpoints").glob("*/step-*")], "the last good checkpoint is kept"
    assert half_written(finished.home) == []
    shown = finished.json("show")
    assert (shown["status"], shown["error"]) == ("failed", error.removeprefix("error: "))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "40m") as place:
        yield place


@pytest.mark.slow
def test_a_full_disk_then_one_that_fills_during_training(cli, tiny, disk, undisturbed, tmp_path, empty_database):
    full = Cli(disk / "home", dict(cli.env), cwd=tmp_path)
    ballast = fill(disk)
    failed = full("run", tiny, code=1)
    assert f"error: LADDER_HOME: cannot write to {full.home}" in failed.err
    assert "Free some space" in failed.err
    assert not full.home.exists()

    ballast.unlink()
    log = tmp_path / "full.log"
    process = full.start_logged(log, "run", tiny, "teacher.training.steps=2000")
    wait_for(lambda: newest_checkpoint(full.home) or process.poll() is not None, "a checkpoint")
    ballast = fill(disk)
    assert process.wait(120) == 1
    said = log.read_text()
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert f"LADDER_HOME: cannot write to {full.home}" in errors[0]
    assert half_written(full.home) == []

    ballast.unlink()
    resumed = full("run", tiny, "teacher.training.steps=2000")
    assert actions(resumed.err)["teacher"] == "resumed"
    assert half_written(full.home) == []


@pytest.mark.slow
def test_a_disk_that_fills_under_the_embedded_server(tiny, disk, tmp_path):
    full = Cli(disk / "home", cwd=tmp_path)
    log = tmp_path / "full.log"
    process = full.start_logged(log, "run", tiny, "teacher.training.steps=2000")
    wait_for(lambda: newest_checkpoint(full.home) or process.poll() is not None, "a checkpoint")
    ballast = fill(disk)
    assert process.wait(120) == 1
    said = log.read_text()
    assert "Traceback" not in said
    assert "No space left on device" in said or "disk is full" in said
    ballast.unlink()
    full("run", tiny, "teacher.training.steps=2000")
