"""Comparison of objectives: one student, one teacher, equal steps.

    python -m benchmarks.objectives [--ladder digits|python-stdlib] [--stage NAME] [--seeds 3] [--steps N] [KEY=VALUE ...]

The ladder's root teacher teaches one of its stages (the second, unless another is named) by each objective, with the stage's own
training and, where nothing else is said, its own alpha and temperature. A seed decides first weights and order of the data; the
teacher is the same throughout. Judged on the validation split: accuracy and cross-entropy (nats) for classification, bits per byte
for text. Differences to `forward-kl` are paired by seed, with the 95 % interval of the t statistic (Student 1908).

Models are kept in the store under LADDER_HOME: a second call, or one that was interrupted, computes only what is missing.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.common import machine
from benchmarks.scratch import interval
from conf.home import home
from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.stage.objective import Objective
from conf.schema.stage.stage import Stage
from conf.schema.teacher import TrainedTeacher
from flows.serving.environment import prepare_environment
from models.base.device import precision_of, resolve_device
from tasks.data.prepare import prepare_data
from tasks.evaluation.evaluate import evaluate_model
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import teacher_work
from tasks.training.find_or_train import find_or_train
from tasks.training.student import student_work

NAME = "benchmark-objectives"
BASE = "forward-kl"
EVERYWHERE: dict[str, dict[str, Any]] = {
    "labels alone": {"alpha": 0.0},
    BASE: {},
    "reverse-kl": {"kind": "reverse-kl"},
    "jsd": {"kind": "jsd"},
    "skew-kl": {"kind": "skew-kl"},
    "skew-reverse-kl": {"kind": "skew-reverse-kl"},
    "tvd": {"kind": "tvd"},
    "taid": {"kind": "taid"},
    "correct-only": {"wrong_teacher": "correct-only"},
    "confidence-gate": {"wrong_teacher": "confidence-gate"},
    "correct": {"wrong_teacher": "correct"},
    "with hidden": {"features": [{"kind": "hidden"}]},
}
CLASSIFICATION: dict[str, dict[str, Any]] = {
    "standardize, T 2": {"standardize": True, "temperature": 2.0},
    "dkd, T 4": {"kind": "dkd", "temperature": 4.0},
    "logit-mse": {"kind": "logit-mse"},
    "with minilm": {"features": [{"kind": "minilm"}]},
}
METRICS = {"causal-lm": ("bits_per_byte",)}


def variants(ladder: Ladder) -> dict[str, dict[str, Any]]:
    """Name to what differs from the stage's own objective."""
    return EVERYWHERE if ladder.workload == "causal-lm" else EVERYWHERE | CLASSIFICATION


def taught(
    stage: Stage, change: dict[str, Any], seed: int, teacher: StageRecord, ladder: Ladder, data: DataRecord, context: Context
) -> dict[str, float]:
    """Figures of the stage's student, taught by a changed objective."""
    objective = Objective.model_validate({**stage.objective.model_dump(), **change})
    changed = stage.model_copy(update={"objective": objective, "seed": seed, "teachers": ("parent",)})
    student = find_or_train(student_work(changed, teacher, ladder, data), StageInputs(ladder, data, context))
    return evaluate_model(student, [], StageInputs(ladder, data, context), precision_of(ladder, stage.training)).metrics


def table(results: dict[str, list[dict[str, float]]], metrics: Sequence[str]) -> str:
    """One line an objective: each figure's mean, least and most, and its paired difference to `forward-kl`."""
    lines = [f"{'objective':<18}" + "".join(f"{metric + ' (least - most)':<28}{'- ' + BASE:<26}" for metric in metrics)]
    for name, figures in results.items():
        line = f"{name:<18}"
        for metric in metrics:
            values = [each[metric] for each in figures]
            mean, half = interval([value - base[metric] for value, base in zip(values, results[BASE], strict=True)])
            within = "" if math.isnan(half) or name == BASE else f"{mean:+.4f} +- {half:.4f}"
            line += f"{f'{statistics.fmean(values):.4f} ({min(values):.4f} - {max(values):.4f})':<28}{within:<26}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def main() -> None:
    """Compute what the store does not hold, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ladder", default="digits", choices=("digits", "python-stdlib"))
    parser.add_argument("--stage", help="stage to teach; the second by default")
    parser.add_argument("--seeds", type=int, default=3, help="students of each objective, with the seeds 0, 1, ...")
    parser.add_argument("--steps", type=int, help="steps of a student; the stage's own by default")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change")
    options = parser.parse_args()
    prepare_environment(home())
    began = time.monotonic()
    ladder, base = load(options.ladder, ["compute.at_once=null", *options.overrides])[:2]
    stages = {stage.name: stage for stage in ladder.stages}
    stage = stages[options.stage] if options.stage else ladder.stages[1]
    if options.steps:
        stage = stage.model_copy(update={"training": stage.training.model_copy(update={"steps": options.steps})})
    context = Context(run=NAME, ladder=NAME, home=str(home().root), base=str(base))
    data = prepare_data(ladder, context)
    assert isinstance(ladder.teacher, TrainedTeacher)
    teacher = find_or_train(teacher_work(ladder, ladder.teacher, data), StageInputs(ladder, data, context))
    own = evaluate_model(teacher, [], StageInputs(ladder, data, context), precision_of(ladder, stage.training)).metrics
    results: dict[str, list[dict[str, float]]] = {name: [] for name in variants(ladder)}
    for seed in range(options.seeds):
        for name, change in variants(ladder).items():
            results[name].append(taught(stage, change, seed, teacher, ladder, data, context))
    metrics = METRICS.get(ladder.workload, ("accuracy", "nll"))
    print(f"{options.ladder}, {stage.name} <- teacher, {stage.training.steps} steps, seeds 0 to {options.seeds - 1}")
    print(f"{machine(resolve_device(ladder.compute.device))}")
    print(f"teacher: {', '.join(f'{metric} {own[metric]:.4f}' for metric in metrics)}\n\n{table(results, metrics)}")
    print(f"\n{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
