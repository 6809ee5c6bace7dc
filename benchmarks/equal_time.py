"""Routes of a ladder at equal processor time: `python -m benchmarks.equal_time [LADDER] [KEY=VALUE ...] [--routes NAMES] [--seeds 5]`.

Equal FLOPs (`benchmarks.routes`) are not equal time: small models and live teachers reach a smaller share of the processor's speed. Here
the ladder as written is trained once; each other route, and the last student from labels alone (`scratch`), is trained with as many FLOPs,
and all its steps are then scaled by the ratio of the seconds. With these steps all are trained with every seed. Seconds are processor
seconds of this process, signals included, evaluation not, so that other work on the machine counts little; the root teacher is free.
Printed are scores on the test split, and paired gains over the ladder as written.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from statistics import fmean

from benchmarks.auto import judged, trained
from benchmarks.common import machine
from conf.loading.load import load
from conf.schema.ladder import Ladder
from models.base.device import resolve_device, use_threads
from models.base.quality import direction, main_metric
from models.base.statistics import interval
from tasks.data.prepare import prepare_data
from tasks.planning.matching import shortened
from tasks.proof.arms import replicate, scratch
from tasks.records.run import StageRecord
from tasks.routing.candidates import AS_WRITTEN, candidates_of
from tasks.routing.pilots import pilot_ladder
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.signals.signal_cache import KIND

SCRATCH = "scratch"


def timed(ladder: Ladder, label: str, root: StageRecord, inputs: StageInputs) -> tuple[float, float]:
    """Score of a ladder's last student on the test split, and the seconds of its trainings, none of which may be stored, nor answers."""
    rmtree(inputs.context.paths.store / KIND, ignore_errors=True)
    whole, began = pilot_ladder(ladder, label), time.process_time()
    last = trained(whole, root, inputs)[-1]
    seconds = time.process_time() - began
    return judged(last, whole, inputs, "test").metrics[main_metric(ladder.workload)], seconds


def measure(ladder: Ladder, home: Path, base: Path, seeds: int, routes: list[str]) -> None:
    """Print the table of a ladder, in a home without students."""
    context = Context(run="benchmark", ladder=ladder.name, home=str(home.absolute()), base=str(base))
    data = prepare_data(ladder, context)
    inputs = StageInputs(ladder, data, context)
    root, known = prepare_teacher(inputs), candidates_of(ladder, context, data.corpus(), pilots=False)
    arms = {route: made.ladder for route, made in known.routes.items()}
    arms[SCRATCH] = scratch(arms[AS_WRITTEN])
    arms = {name: arms[name] for name in (AS_WRITTEN, *(routes or [each for each in arms if each != AS_WRITTEN]))}
    print(f"{ladder.name}; {machine(resolve_device(ladder.compute.device))}; left out: {known.left_out or 'none'}", flush=True)
    written = 0.0
    for name, arm in arms.items():  # as written first; its seeds are not those of the table
        _, seconds = timed(replicate(arm, seeds), f"{name}-first", root, inputs)
        written = written or seconds
        arms[name] = shortened(arm, written / seconds)
        print(f"  {name}: {seconds:.1f} s, then steps {[stage.training.steps for stage in arms[name].stages]}", flush=True)
    found = {
        name: [timed(replicate(arm, number), f"{name}-{number}", root, replace(inputs, ladder=arm)) for number in range(seeds)]
        for name, arm in arms.items()
    }
    sign = direction(main_metric(ladder.workload))
    print(f"\n| route | steps | {main_metric(ladder.workload)} by seed | mean | seconds a seed | gain over {AS_WRITTEN} (95 % interval) |")
    print("|---|---|---|---|---|---|")
    for name, rows in found.items():
        scores, steps = [score for score, _ in rows], " + ".join(str(stage.training.steps) for stage in arms[name].stages)
        gain = interval([sign * (score - other) for score, (other, _) in zip(scores, found[AS_WRITTEN], strict=True)])
        over = "" if name == AS_WRITTEN else f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
        each = ", ".join(f"{score:.4f}" for score in scores)
        print(f"| {name} | {steps} | {each} | {fmean(scores):.4f} | {fmean(seconds for _, seconds in rows):.0f} | {over} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ladder", nargs="?", default="digits")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--routes", default="", help="Names, separated by commas; none: scratch and all that the ladder can have.")
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_intermixed_args()
    loaded = load(asked.ladder, ("compute.at_once=null", "audit.enabled=false", *asked.overrides))
    use_threads(loaded.ladder)
    with tempfile.TemporaryDirectory() as folder:
        measure(loaded.ladder, Path(folder), loaded.base, asked.seeds, [name for name in asked.routes.split(",") if name])
