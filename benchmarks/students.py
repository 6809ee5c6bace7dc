"""Comparison of a student's initialisations, and of its teachers.

    python -m benchmarks.students [--ladder smollm2] [--steps 100] [KEY=VALUE ...]

The ladder's first stage begins once with each initialisation that its shape allows (`prune`, `layers`, `random`), with the same data order,
steps and teacher. Its second stage is then taught once by its parent (the pruned student just made) and once by the root, at equal steps.
Judged on the validation split against the root. Models are kept in the store under LADDER_HOME: a second call computes only what
is missing.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from benchmarks.common import machine
from conf.errors import UserError
from conf.home import home
from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from flows.serving.environment import prepare_environment
from models.base.device import precision_of, resolve_device
from tasks.data.prepare import prepare_data
from tasks.evaluation.evaluate import evaluate_model
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.logs import log, show_logs
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.find_or_train import find_or_train
from tasks.training.student import student_work

NAME = "benchmark-students"
FIRST = ("prune", "layers", "random")


def taught(stage: Stage, lineage: list[StageRecord], ladder: Ladder, data: DataRecord, context: Context) -> StageRecord:
    """The stage's student, judged against the last and the first of `lineage`."""
    student = find_or_train(student_work(stage, lineage[-1], ladder, data, lineage), StageInputs(ladder, data, context))
    return evaluate_model(student, lineage, StageInputs(ladder, data, context), precision_of(ladder, stage.training))


def line(name: str, record: StageRecord) -> str:
    """One student: validation nll before any training, then its figures and what it cost."""
    figures = record.metrics
    score = f"{figures['bits_per_byte']:.3f} bits/byte" if "bits_per_byte" in figures else f"{figures['accuracy']:.1%}"
    return f"| {name} | {record.initial['nll']:.2f} | {score} | {figures['agreement_root']:.1%} | {record.seconds:.0f} |"


def main() -> None:
    """Compute what the store does not hold, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ladder", default="smollm2", help="name or path")
    parser.add_argument("--steps", type=int, default=100, help="steps of every student")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change")
    options = parser.parse_args()
    prepare_environment(home())
    show_logs()
    began = time.monotonic()
    ladder, base = load(options.ladder, options.overrides)[:2]
    first, second = (_with(stage, stage.student.initialisation, options.steps) for stage in ladder.stages[:2])
    context = Context(run=NAME, ladder=NAME, home=str(home().root), base=str(base))
    data = prepare_data(ladder, context)
    teacher = prepare_teacher(StageInputs(ladder, data, context))
    root = evaluate_model(teacher, [], StageInputs(ladder, data, context), precision_of(ladder, first.training))
    lines, parent = [], None
    for how in FIRST:
        try:
            made = taught(_with(first, how, options.steps), [root], ladder, data, context)
        except UserError as error:  # `layers` asks for the teacher's width
            log.warning("%s: left out, %s", how, error)
            continue
        lines.append(line(f"{first.name}, {how}", made))
        parent = parent or made
    assert parent is not None
    for who in ("parent", "root"):
        chosen = second.model_copy(update={"teachers": (who,)})
        lines.append(line(f"{second.name} <- {who}", taught(chosen, [root, parent], ladder, data, context)))
    print(f"{options.ladder} {' '.join(options.overrides)}".rstrip() + f", {options.steps} steps each, one seed")
    print(f"{machine(resolve_device(ladder.compute.device))}\n")
    print("| student | nll before, nats | after training | agreement with the root | seconds |\n|---|---|---|---|---|")
    print("\n".join(lines) + f"\n\n{time.monotonic() - began:.0f} s in all")


def _with(stage: Stage, initialisation: Any, steps: int) -> Stage:
    student = stage.student.model_copy(update={"initialisation": initialisation})
    return stage.model_copy(update={"student": student, "training": stage.training.model_copy(update={"steps": steps})})


if __name__ == "__main__":
    main()
