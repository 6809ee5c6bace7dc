"""Comparison of assistants and of chains on the digits (TAKD's Tables 1 and 2).

    python -m benchmarks.assistants [--seeds 5] [--widths W ...] [--chain W ...] [-- KEY=VALUE ...]

TAKD (Mirzadeh et al. 2020, arXiv:1902.03393) teaches a small student through assistants between it and its teacher. Here teacher and
student are those of the ladder `digits`; the assistants have the width of 2, 3, 4 ... heads of four features (TAKD: numbers of layers).
Every model is trained with the settings of the ladder's last stage, whatever its size; all start from random weights.

- Which assistant: teacher -> assistant -> student for every size of the assistant, beside no assistant (TAKD: Table 1).
- Which chain: every chain through a subset of three sizes, the longest has all of them (TAKD: Table 2).

Each also beside the direct jump with as many FLOPs, which TAKD does not show. Seeds decide first weights and the order of the data; the
teacher is one. Scores are accuracies on the test split; intervals are over seeds, those of differences are paired by seed.

Models are kept in the store under LADDER_HOME: a second call, or one that was interrupted, computes only what is missing. Prints Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import machine, shape_of
from conf.home import home
from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.stage.gate import Gate
from conf.schema.stage.stage import Stage
from conf.schema.stage.student import Shape, Student
from conf.schema.teacher import TrainedTeacher
from flows.serving.environment import prepare_environment
from models.architectures.shapes import size_of
from models.base.device import precision_of, resolve_device
from models.base.statistics import Interval, interval
from tasks.data.prepare import prepare_data
from tasks.evaluation.evaluate import evaluate_model
from tasks.planning.matching import direct, flops_of, matched, total_of, with_stages
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import teacher_work
from tasks.training.costs.cost_model import Forward
from tasks.training.costs.examples import training_examples
from tasks.training.find_or_train import find_or_train
from tasks.training.student import student_work

NAME = "benchmark-assistants"
HEAD = 4  # features of a head; a width is so many heads
WIDTHS = (40, 32, 28, 20, 16)  # of the assistants, the largest first
CHAIN = (36, 28, 20)  # of those that chains are made of
STUDENT = 12


class Trial(NamedTuple):
    """A chain of widths between teacher and student, its students' ladder, and its operations."""

    chain: tuple[int, ...]
    ladder: Ladder
    flops: float


def shape(width: int, like: Shape) -> Shape:
    """A vision transformer of a width, its feed-forward part twice as wide."""
    return like.model_copy(update={"hidden_size": width, "heads": width // HEAD, "feed_forward": 2 * width, "layers": 2})


def chain_of(widths: Sequence[int], ladder: Ladder) -> Ladder:
    """The ladder with students of these widths, all trained as its last stage is."""
    last = ladder.stages[-1]

    def stage(width: int) -> Stage:
        student = Student(shape=shape(width, shape_of(last)))
        return last.model_copy(update={"name": f"w{width}", "student": student, "gate": Gate(), "teachers": ("parent",)})

    return ladder.model_copy(update={"stages": tuple(map(stage, widths))})


def price(ladder: Ladder, data: DataRecord) -> float:
    """Operations of all trainings of a chain."""
    interface, root = data.corpus().interface, ladder.teacher.shape
    assert root is not None
    forwards = [Forward.of(size_of(shape, interface)) for shape in (root, *map(shape_of, ladder.stages))]
    return total_of(flops_of(ladder, forwards, training_examples(data.corpus(), cached=False)))


def score(ladder: Ladder, seed: int, teacher: StageRecord, data: DataRecord, context: Context) -> float:
    """Accuracy of a chain's last student on the test split."""
    lineage = [teacher]
    for stage in ladder.stages:
        own = stage.model_copy(update={"seed": ladder.seed + seed})
        lineage.append(find_or_train(student_work(own, lineage[-1], ladder, data, lineage), StageInputs(ladder, data, context)))
    precision = precision_of(ladder, ladder.stages[-1].training)
    return evaluate_model(lineage[-1], [], StageInputs(ladder, data, context), precision, "test").metrics["accuracy"]


def named(chain: Sequence[int]) -> str:
    """`teacher -> 28 -> 12`."""
    return " -> ".join(["teacher", *map(str, chain), str(STUDENT)])


def spread(found: Interval, sign: str = "") -> str:
    """A mean and its interval in per cent."""
    return f"{100 * found.mean:{sign}.2f} ({100 * found.low:{sign}.2f} to {100 * found.high:{sign}.2f})"


def table(trials: Sequence[Trial], scores: dict[str, list[float]], base: str, examples: int) -> str:
    """One line for each chain: its accuracy, what it gains over no assistant, its price, and what it gains over a jump of that price."""
    step, cost = 1 / examples, {named(trial.chain): trial.flops for trial in trials}
    lines = [
        "| chain | accuracy, % | gain over no assistant | FLOPs | direct with as many FLOPs | gain over it |",
        "|---|---|---|---|---|---|",
    ]
    for trial in trials:
        name = named(trial.chain)
        cells = [spread(interval(scores[name], resolution=step)), "-", f"{cost[name] / cost[base]:.2f}x", "-", "-"]
        if trial.chain:
            own, other = scores[name], scores[f"matched {name}"]
            cells[1] = spread(interval([a - b for a, b in zip(own, scores[base], strict=True)], resolution=step), "+")
            cells[3] = spread(interval(other, resolution=step))
            cells[4] = spread(interval([a - b for a, b in zip(own, other, strict=True)], resolution=step), "+")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train what the store lacks, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--widths", type=int, nargs="*", default=WIDTHS, help="of the assistants, the largest first")
    parser.add_argument("--chain", type=int, nargs="*", default=CHAIN, help="widths that chains are made of, the largest first")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    asked = parser.parse_args()
    if asked.seeds < 2:
        parser.error("--seeds: an interval needs at least two")
    prepare_environment(home())
    ladder, base = load("digits", asked.overrides)
    assert isinstance(ladder.teacher, TrainedTeacher)
    context = Context(run=NAME, ladder=ladder.name, home=str(home().root), base=str(base))
    began = time.monotonic()
    data = prepare_data(ladder, context)
    teacher = find_or_train(teacher_work(ladder, ladder.teacher, data), StageInputs(ladder, data, context))
    chains = [(), *((width,) for width in asked.widths)]
    longer = [c for length in range(2, len(asked.chain) + 1) for c in itertools.combinations(asked.chain, length)]
    chains += [c for c in [*((width,) for width in asked.chain), *longer] if c not in chains]
    trials = [Trial(chain, made, price(made, data)) for chain in chains for made in [chain_of((*chain, STUDENT), ladder)]]
    scores: dict[str, list[float]] = {}
    for seed in range(asked.seeds):
        for trial in trials:
            scores.setdefault(named(trial.chain), []).append(score(trial.ladder, seed, teacher, data, context))
            if trial.chain:
                single = direct(trial.ladder)
                jump = matched(single.stages[0], lambda stage, s=single: price(with_stages(s, stage), data), trial.flops)
                jumped = with_stages(single, jump)
                scores.setdefault(f"matched {named(trial.chain)}", []).append(score(jumped, seed, teacher, data, context))
    examples = data.corpus().info.documents["test"]
    report(trials, scores, asked, ladder, min(examples, ladder.evaluation.examples), Path(teacher.folder).name, time.monotonic() - began)


def report(
    trials: Sequence[Trial],
    scores: dict[str, list[float]],
    asked: argparse.Namespace,
    ladder: Ladder,
    examples: int,
    teacher: str,
    seconds: float,
) -> None:
    """Both tables in Markdown, and where they were measured."""
    first = [trial for trial in trials if trial.chain == () or (len(trial.chain) == 1 and trial.chain[0] in asked.widths)]
    second = [trial for trial in trials if set(trial.chain) <= set(asked.chain)]
    steps = ladder.stages[-1].training.steps
    print(f"Teacher {teacher}, student of width {STUDENT}; {steps} steps each, {asked.seeds} seeds, {examples} test examples.")
    print("Intervals of 95 % over seeds (Student's t below 20).\n")
    print("Which assistant:\n\n" + table(first, scores, named(()), examples) + "\n")
    print("Which chain:\n\n" + table(second, scores, named(()), examples) + "\n")
    print(f"{machine(resolve_device(ladder.compute.device))}; {seconds:.0f} s, models that were found in the store not made again.")


if __name__ == "__main__":
    main()
