"""`python -m benchmarks.gpu --toy`: everything that a GPU will run, with small shapes on the processor."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time

import pytest

from benchmarks.gpu import KINDS, compiled

STAGES = ("300m", "100m", "30m")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.processes
def test_compilation_is_ended_after_its_time() -> None:
    began = time.monotonic()
    assert compiled(2, 2, True, 1.0) == "ended after 1 s, its share of the time"
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_the_toy_runs_to_its_end() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--toy", "--compile-seconds", "900"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    tables = [[cells(line) for line in part.splitlines() if line.startswith("| ")] for part in done.stdout.split("A whole ladder")]

    assert len(tables) == 2
    speeds, models = ([dict(zip(table[0], row, strict=True)) for row in table[1:]] for table in tables)
    assert [(row["pair"].split()[-1], row["signals"]) for row in speeds[:-1]] == [(stage, kind) for stage in STAGES for kind in KINDS]
    assert (speeds[-1]["pair"].split()[-1], speeds[-1]["signals"]) == ("compiled", "live")
    for row in speeds:
        assert float(row["tokens/s"].replace(",", "")) > 0
        assert math.isfinite(float(row["loss"]))
    labels = float(speeds[0]["loss"])
    assert abs(labels - math.log(512)) < 0.5  # random weights and ids: nothing is known of the next one
    plain = next(row for row in speeds if row["pair"].endswith("-> 30m") and row["signals"] == "live")
    assert abs(float(speeds[-1]["loss"]) - float(plain["loss"])) < 0.05  # compiled, the same pair computes the same

    assert [row["model"] for row in models] == ["teacher", *STAGES]
    assert len({row["fingerprint"] for row in models}) == 4
    assert all(0 < float(row["bits per byte"]) < 8 for row in models)
    assert [row["signals"].startswith("top-k, 50 ids") for row in models] == [False, True, True, True]
