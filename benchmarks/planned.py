"""Planned against measured: FLOPs, time and quality of whole schedules, foretold from pilots of a quarter of their steps and fewer.

    python -m benchmarks.planned                 # three ladders: digits, python-stdlib shortened, dialects
    python -m benchmarks.planned digits

Every ladder and one jump with as many FLOPs are foretold as `ladder plan --pilot` does it, and then trained in a home that knows nothing
of the pilots. Times are processor seconds of a whole schedule, evaluation included, so that other work on the machine counts little.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import dialects
from conf.loading.load import Loaded, load
from conf.schema.ladder import Ladder
from models.base.device import use_threads
from tasks.data.prepare import prepare_data
from tasks.planning.proposals.forecast import FarStage, curve_of, far_stages, foretell, line_through, matched_jump
from tasks.planning.proposals.measured import (
    SCHEDULES,
    MeasuredSchedule,
    counted,
    measure_schedule,
    operations_down,
    settled_ladder,
    shortened_ladder,
)
from tasks.planning.students import settle_students
from tasks.records.format import operations
from tasks.records.run import StageRecord
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher

QUIET = ("compute.threads=1", "compute.at_once=null")
SHORT = (
    "teacher.training.steps=200",
    "evaluation.examples=128",
    *(f"stages.{name}.training.steps=160" for name in ("300k", "100k", "30k")),
)


class Case(NamedTuple):
    """A student of a whole schedule, foretold and measured; `seconds` are of its whole schedule, and of the last student alone."""

    ladder: str
    far: FarStage
    loss: float
    flops: float
    seconds: tuple[float, float] | None

    @property
    def inside(self) -> bool:
        """Whether the measured loss lies in the interval."""
        return self.far.low <= self.loss <= self.far.high


def ladders(folder: Path) -> dict[str, Callable[[], Loaded]]:
    """The ladders, by name."""
    return {
        "digits": lambda: load("digits", QUIET),
        "python-stdlib": lambda: load("python-stdlib", (*QUIET, *SHORT)),
        "dialects": lambda: load(str(dialects.write(folder / "dialects", steps=320)), QUIET),
    }


def cases_of(loaded: Loaded, folder: Path) -> Iterator[Case]:
    """Foretell the ladder and its jump, then train both."""
    context = Context(run="planned", ladder=loaded.ladder.name, home=str(folder / "pilots"), base=str(loaded.base))
    ladder = settle_students(loaded.ladder, context)
    use_threads(ladder)
    inputs = StageInputs(ladder, prepare_data(ladder, context), context)
    root = prepare_teacher(inputs)
    away = [_copied(name, inputs, folder) for name in ("whole", "jump")]  # which know nothing of the pilots, nor of each other
    whole = settled_ladder(ladder, inputs)
    measure_schedule(shortened_ladder(whole, SCHEDULES[0][0], seed=9), root, inputs)  # the first training of a process costs more
    pilots, busy = timed(whole, root, inputs)
    yield from compared(whole, pilots, busy, prepare_teacher(away[0]), away[0])
    jump = matched_jump(whole, operations_down(whole, *counted(whole, inputs))[-1], inputs)
    jumps, busy = timed(jump, root, inputs)
    for case in compared(jump, jumps, busy, prepare_teacher(away[1]), away[1]):
        yield case._replace(ladder=f"{case.ladder}, one jump")
    print(f"{ladder.name}: a jump is as good with probability {foretell(ladder, root, inputs).as_good:.2f}", flush=True)


def _copied(name: str, inputs: StageInputs, folder: Path) -> StageInputs:
    """The same inputs in a copy of the home."""
    shutil.copytree(inputs.context.home, folder / name)
    context = inputs.context.model_copy(update={"home": str(folder / name)})
    return StageInputs(inputs.ladder, prepare_data(inputs.ladder, context), context)


def timed(ladder: Ladder, root: StageRecord, inputs: StageInputs) -> tuple[list[MeasuredSchedule], list[tuple[float, float]]]:
    """The pilots of a ladder, and the processor seconds of each by its share."""
    pilots, busy = [], []
    for share, seed in SCHEDULES:
        began = time.process_time()
        pilots.append(measure_schedule(shortened_ladder(ladder, share, seed), root, inputs, share, seed))
        busy.append((share, time.process_time() - began))
    return pilots, busy


def compared(
    ladder: Ladder,
    pilots: Sequence[MeasuredSchedule],
    busy: Sequence[tuple[float, float]],
    root: StageRecord,
    away: StageInputs,
) -> Iterator[Case]:
    """Foretell a ladder's stages, train them, and compare."""
    foretold = far_stages(ladder, pilots, [curve_of(pilots, place) for place in range(len(ladder.stages))], away)
    began = time.process_time()
    made = measure_schedule(ladder, root, away)
    seconds = line_through(busy, 1.0), time.process_time() - began
    trained = 0.0
    for place, (far, stage) in enumerate(zip(foretold, made.stages, strict=True)):
        trained += stage.trained_flops
        yield Case(ladder.name, far, stage.loss, trained, seconds if place == len(foretold) - 1 else None)


def row(case: Case) -> str:
    """A line of the table."""
    far = case.far
    times = ""
    if case.seconds is not None:
        foretold, measured = case.seconds
        times = f"{foretold:.1f} / {measured:.1f} ({foretold / measured - 1:+.0%})"
    exact = "exact" if far.flops == case.flops else f"{case.flops / far.flops:.4f} x"
    interval = f"{far.loss:.4f} ({far.low:.4f} to {far.high:.4f})"
    found = f"{case.loss:.4f} | {'inside' if case.inside else 'OUTSIDE'}"
    return f"| {case.ladder}: {far.name} | {operations(far.flops)} | {exact} | {times} | {interval} | {found} |"


def main(names: Sequence[str]) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as place:
        folder, found = Path(place), list[Case]()
        for name, loaded in ladders(folder).items():
            if not names or name in names:
                found += cases_of(loaded(), folder / name / "homes")
    print("| ladder: student | FLOPs down to it | counted | processor seconds, foretold / measured | loss foretold (90 %) | measured | |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(map(row, found)))
    print(f"\n{sum(case.inside for case in found)} of {len(found)} losses inside their interval")


if __name__ == "__main__":
    main(sys.argv[1:])
