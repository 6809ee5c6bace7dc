"""Comparison of a setting's values, over seeds, paired with the first value.

    python -m benchmarks.defaults LADDER KEY VALUE VALUE ... [--seeds 5] [--with KEY=VALUE ...]
    python -m benchmarks.defaults digits defaults.objective.alpha 0.9 0.5 1.0 --seeds 3

Trains the whole ladder with each value and scores its last student on the test split. Seeds decide first weights and the order of the data
of the students; the teacher is one. Processor seconds are those of the trainings that this call made, signals included. A second call, or
one that was interrupted, computes only what is missing in LADDER_HOME. Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.common import machine
from conf.home import home
from conf.loading.load import load
from flows.serving.environment import prepare_environment
from models.base.device import precision_of
from models.base.quality import main_metric
from models.base.statistics import Interval, interval
from tasks.data.prepare import prepare_data
from tasks.evaluation.evaluate import evaluate_model
from tasks.planning.matching import reseeded
from tasks.planning.preflight import check_ladder
from tasks.planning.students import settle_students
from tasks.runtime.logs import log, show_logs
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.student import train_student

NAME = "benchmark-defaults"


class Scores(NamedTuple):
    """The main metric, its step, its value on the test split by seed, and the seconds of all trainings."""

    metric: str
    resolution: float
    values: list[float]
    seconds: float


def scores_of(source: str, overrides: Sequence[str], seeds: int) -> Scores:
    """Train the ladder with some settings and score its last student."""
    ladder, base = load(source, overrides)
    context = Context(run=NAME, ladder=ladder.name, home=str(home().root), base=str(base))
    data = prepare_data(ladder, context)
    ladder = settle_students(ladder, context)
    check_ladder(ladder, context, data.corpus())
    inputs = StageInputs(ladder, data, context)
    root, metric = prepare_teacher(inputs), main_metric(ladder.workload)
    found, seconds = list[float](), 0.0
    for seed in range(seeds):
        own = StageInputs(reseeded(ladder, seed), data, context)
        lineage = [root]
        for stage in own.ladder.stages:
            lineage.append(train_student(stage, lineage, own))
            seconds += lineage[-1].seconds + lineage[-1].signal_seconds
        last = own.ladder.stages[-1]
        judged = evaluate_model(lineage[-1], [], own, precision_of(ladder, last.training), "test")
        found.append(judged.metrics[metric])
        log.info("%s seed %d: %s %.4f", " ".join(overrides), seed, metric, found[-1])
    step = 0.0 if ladder.workload == "causal-lm" else 1 / min(data.corpus().info.documents["test"], ladder.evaluation.examples)
    return Scores(metric, step, found, seconds)


def cell(found: Interval, signed: bool = False) -> str:
    """A mean and its interval."""
    form = "{:+.4f} ({:+.4f} to {:+.4f})" if signed else "{:.4f} ({:.4f} to {:.4f})"
    return form.format(found.mean, found.low, found.high)


def main() -> None:
    """Train what the store lacks, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ladder")
    parser.add_argument("key", help="of the setting")
    parser.add_argument("values", nargs="+", help="the first is the one that others are compared with")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--with", dest="overrides", nargs="*", default=[], metavar="KEY=VALUE", help="settings of all")
    asked = parser.parse_args()
    if asked.seeds < 2 or len(asked.values) < 2:
        parser.error("an interval needs two seeds at least, a comparison two values")
    prepare_environment(home())
    show_logs()
    made = {value: scores_of(asked.ladder, [*asked.overrides, f"{asked.key}={value}"], asked.seeds) for value in asked.values}
    first, step = made[asked.values[0]].values, made[asked.values[0]].resolution
    metric = made[asked.values[0]].metric
    print(f"\n{asked.ladder}, {asked.key}, {asked.seeds} seeds: {metric} on the test split, mean and 95 % interval; {machine('cpu')}\n")
    print(f"| {asked.key} | {metric} | less {asked.values[0]}, paired | seconds of training |\n|---|---|---|---|")
    for value, scores in made.items():
        less = [a - b for a, b in zip(scores.values, first, strict=True)]
        gain = "" if value == asked.values[0] else cell(interval(less, resolution=step), signed=True)
        print(f"| {value} | {cell(interval(scores.values, resolution=step))} | {gain} | {scores.seconds:,.0f} |")


if __name__ == "__main__":
    main()
