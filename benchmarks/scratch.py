"""Does teaching help? Every distilled stage of `python-stdlib` against the same student trained from labels alone.

    python -m benchmarks.scratch [--seeds 3] [KEY=VALUE ...]

A seed is a whole ladder of its own: teacher, and stages taught one by another. For each of its stages the same student is trained
again without a teacher: the same first weights, data order, steps and learning rates. Both are judged in bits per byte on the
validation split. The difference is given with a 95 % interval of the paired t statistic over seeds (Student 1908), which asks for
at least two seeds and, with three, is wide.

Everything is kept in the store under LADDER_HOME, where `ladder run` finds the distilled models too: a second call, or one that
was interrupted, computes only what is missing.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import nn

from benchmarks.common import machine
from conf.home import home
from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from conf.schema.teacher import TrainedTeacher
from flows.serving.environment import prepare_environment
from models.architectures.checkpoint import load_model
from models.base.device import precision_of, resolve_device
from tasks.data.prepare import prepare_data
from tasks.evaluation.evaluate import evaluate_model
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.logs import show_logs
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import teacher_work
from tasks.training.find_or_train import find_or_train
from tasks.training.identity import stage_identity
from tasks.training.student import student_work
from tasks.training.work import Work

NAME = "benchmark-scratch"


class StudentBits(NamedTuple):
    """Bits per byte of a student, taught and from scratch."""

    distilled: float
    scratch: float


def scratch_work(stage: Stage, parent: StageRecord, ladder: Ladder, data: DataRecord) -> Work:
    """The stage's student, trained from labels alone."""
    taught = student_work(stage, parent, ladder, data)
    borrows = stage.student.initialisation != "random"  # then the first weights are the parent's, here as there
    teachers = (parent.weights_sha256,) if borrows else ()
    identity = stage_identity(ladder, stage, precision_of(ladder, stage.training), data.content_hash, teachers)

    def make(_: nn.Module | None, aside: Path) -> nn.Module:
        return taught.make(load_model(Path(parent.folder), ladder.workload), aside)

    identity = {**identity, "kind": "scratch", "objective": None}
    return Work(f"{stage.name}-scratch", "scratch", identity, stage.training, None, taught.seed, make)


def bits_per_byte(record: StageRecord, ladder: Ladder, stage: Stage, data: DataRecord, context: Context) -> float:
    """Judge a model as a ladder run does, on the validation split."""
    judged = evaluate_model(record, [], StageInputs(ladder, data, context), precision_of(ladder, stage.training))
    return judged.metrics["bits_per_byte"]


def one_seed(ladder: Ladder, data: DataRecord, context: Context) -> dict[str, StudentBits]:
    """All stages of a ladder, taught and from scratch."""
    assert isinstance(ladder.teacher, TrainedTeacher)
    parent = find_or_train(teacher_work(ladder, ladder.teacher, data), StageInputs(ladder, data, context))
    pairs = {}
    for stage in ladder.stages:
        taught = find_or_train(student_work(stage, parent, ladder, data), StageInputs(ladder, data, context))
        alone = find_or_train(scratch_work(stage, parent, ladder, data), StageInputs(ladder, data, context))
        pairs[stage.name] = StudentBits(*(bits_per_byte(model, ladder, stage, data, context) for model in (taught, alone)))
        parent = taught
    return pairs


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval by Student's t; the half-width is NaN for a single difference."""
    from scipy.stats import t

    mean, n = statistics.fmean(differences), len(differences)
    if n < 2:
        return mean, math.nan
    return mean, float(t.ppf(0.975, n - 1)) * statistics.stdev(differences) / math.sqrt(n)


def table(results: Sequence[dict[str, StudentBits]]) -> str:
    """The results in words: one line a stage."""
    wide = max(8 * len(results), 16)
    lines = [f"{'stage':<10}{'distilled':<{wide}}{'from scratch':<{wide}}scratch - distilled (95 % interval)"]
    for name in results[0]:
        pairs = [result[name] for result in results]
        mean, half = interval([pair.scratch - pair.distilled for pair in pairs])
        taught, alone = ("  ".join(f"{value:.3f}" for value in values) for values in zip(*pairs, strict=True))
        within = "(one seed: no interval)" if math.isnan(half) else f"({mean - half:+.3f} to {mean + half:+.3f})"
        lines.append(f"{name:<10}{taught:<{wide}}{alone:<{wide}}{mean:+.3f} {within}")
    won = sum(pair.distilled < pair.scratch for result in results for pair in result.values())
    lines.append(f"\nThe distilled student is better in {won} of {sum(map(len, results))} pairs.")
    return "\n".join(lines)


def main() -> None:
    """Compute what the store does not hold, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3, help="ladders, with the seeds 0, 1, ...")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change, such as defaults.training.steps=10")
    options = parser.parse_args()
    prepare_environment(home())
    show_logs()
    began, results = time.monotonic(), []
    ladders = [load("python-stdlib", [*options.overrides, f"seed={seed}"]) for seed in range(options.seeds)]
    for ladder, base in ladders:
        context = Context(run=NAME, ladder=NAME, home=str(home().root), base=str(base))
        results.append(one_seed(ladder, prepare_data(ladder, context), context))
    print(f"python-stdlib {' '.join(options.overrides)}".rstrip() + f", bits per byte, seeds 0 to {options.seeds - 1}")
    print(f"{machine(resolve_device(ladders[0].ladder.compute.device))}\n\n{table(results)}\n{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
