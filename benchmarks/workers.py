"""Costs and gains of worker processes on this machine: `python -m benchmarks.workers [--steps 60] [--repeats 3] [KEY=VALUE ...]`.

Trains the teacher of `python-stdlib` in one process with one thread and with all, and in as many workers as there are cores, a thread
each, by ddp and by fsdp, in alternation. Speeds are those between the first steps and the last one, as the run sees them, which is to
within a fifth of a second; what it takes to start is given apart: from the call to the first step.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from benchmarks.common import machine, spread
from conf.loading.load import load
from models.base.device import use_threads
from models.training.loop import Step
from tasks.data.prepare import prepare_data
from tasks.records.run import DataRecord
from tasks.runtime.progress import TrainingProgress
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher

WARM = 5  # steps that do not count
CORES = len(os.sched_getaffinity(0))
WORKERS = ("compute.launcher=torchrun", f"compute.workers={CORES}", f"compute.threads={CORES}")
KINDS = {
    "one process, one thread": ("compute.threads=1",),
    f"one process, {CORES} threads": (f"compute.threads={CORES}",),
    f"{CORES} workers, ddp": WORKERS,
    f"{CORES} workers, fsdp": (*WORKERS, "compute.strategy=fsdp"),
}


class Measured(NamedTuple):
    """Tokens a second, and the seconds until the first step."""

    speed: float
    start: float


def measured(overrides: tuple[str, ...], data: DataRecord, base: Path) -> Measured:
    """Train the teacher in a home of its own."""
    ladder = load("python-stdlib", overrides).ladder
    use_threads(ladder)
    moments = dict[int, float]()
    show = TrainingProgress.on_step

    def note(progress: TrainingProgress, step: Step) -> None:
        moments[step.step] = time.perf_counter()
        show(progress, step)

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as home, patch.object(TrainingProgress, "on_step", note):
        context = Context(run="benchmark-workers", ladder=ladder.name, home=home, base=str(base))
        record = prepare_teacher(StageInputs(ladder, data, context))
    last = max(moments)
    tokens = record.tokens / last * (last - WARM)
    return Measured(tokens / (moments[last] - moments[WARM]), moments[1] - began)


def main() -> None:
    """Measure in alternation, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=60, help="steps of each training")
    parser.add_argument("--repeats", type=int, default=3, help="trainings of each kind")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change")
    options = parser.parse_args()
    never = options.steps + 1
    training = (f"steps={options.steps}", f"validate_every={never}", f"checkpoint_every={never}")
    common = ("tracking=off", "compute.at_once=null", "evaluation.examples=8", "teacher.allow_poor=true")
    common += tuple(f"teacher.training.{each}" for each in training)
    found: dict[str, list[Measured]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as home:
        ladder, base = load("python-stdlib", [*common, *options.overrides])
        data = prepare_data(ladder, Context(run="benchmark-workers", ladder=ladder.name, home=home, base=str(base)))
        for _ in range(options.repeats):
            for kind, overrides in KINDS.items():
                found[kind].append(measured((*common, *overrides, *options.overrides), data, base))
    print(f"{machine('cpu')}, {options.steps} steps, {options.repeats} repeats")
    print("| processes | tokens/s | to one thread | seconds to the first step |\n|---|---|---|---|")
    alone = next(iter(found.values()))
    for kind, each in found.items():
        ratios = spread([one.speed / other.speed for one, other in zip(each, alone, strict=True)], "{:.2f}")
        print(f"| {kind} | {spread([one.speed for one in each])} | {ratios} | {spread([one.start for one in each], '{:.1f}')} |")


if __name__ == "__main__":
    main()
