"""Measure short schedules of a ladder: every student trained, judged and timed."""

from __future__ import annotations

from collections.abc import Sequence

from conf.schema.ladder import Ladder
from models.base.device import precision_of
from models.base.quality import learned_nothing
from tasks.evaluation.evaluate import evaluate_model
from tasks.planning.matching import reseeded, settled, shortened
from tasks.planning.preflight import check_ladder
from tasks.records.base import Record
from tasks.records.run import StageRecord
from tasks.runtime.logs import log
from tasks.runtime.stage_inputs import StageInputs
from tasks.training.costs.cost_model import Forward, answers_of, ladder_flops
from tasks.training.costs.examples import AnswerCaches, TrainingExamples, training_examples
from tasks.training.student import train_student

# Shares of the steps, and seeds: two of the cheap ones tell how far seeds scatter. In all 0.6 of the price of the whole.
SCHEDULES = ((1 / 16, 0), (1 / 16, 1), (1 / 8, 0), (1 / 8, 1), (1 / 4, 0))


class MeasuredStage(Record):
    """A student at the end of its schedule.

    Attributes:
        flops: Of all trainings of its ladder down to it, by the law of `tasks.training.costs.cost_model`, as of an empty store.
        trained_flops: Of its own training, as its record counts them: answers that were stored before it are not in them.
        loss: Bits per byte, or the error rate, on the validation split.
        rows: Examples that it was judged on.
        learned: Whether it is better than a guess that reads no input.
        seconds: Of its training.
        answering: Seconds of the stored answers that it learns from, whoever asked first.
        answers: How many these are; 0: its teachers answer live.
    """

    name: str
    parameters: int
    steps: int
    flops: float
    trained_flops: float
    loss: float
    rows: int
    learned: bool
    seconds: float
    answering: float
    answers: int


class MeasuredSchedule(Record):
    """A whole schedule of a ladder, shortened by one share."""

    share: float
    seed: int
    stages: tuple[MeasuredStage, ...]


def settled_ladder(ladder: Ladder, inputs: StageInputs) -> Ladder:
    """The ladder as schedules of different lengths are compared: no gates, and live or cached decided for the whole."""
    return settled(ladder, inputs.data.corpus().info)


def shortened_ladder(ladder: Ladder, share: float, seed: int) -> Ladder:
    """The ladder with a share of its steps, and with `seed` added to the seed of each stage."""
    return reseeded(shortened(ladder, share), seed)


def measure_schedules(
    ladder: Ladder, root: StageRecord, inputs: StageInputs, schedules: Sequence[tuple[float, int]] = SCHEDULES
) -> list[MeasuredSchedule]:
    """Train a ladder for each of several shares of its steps; what was trained before is found in the store.

    Args:
        ladder: See `settled_ladder`.
        root: The root teacher, in the store.
        inputs: Data, home.
        schedules: Shares of the steps, and increments of the seeds.
    """
    return [measure_schedule(shortened_ladder(ladder, share, seed), root, inputs, share, seed) for share, seed in schedules]


def measure_schedule(ladder: Ladder, root: StageRecord, inputs: StageInputs, share: float = 1.0, seed: int = 0) -> MeasuredSchedule:
    """Train the stages of a ladder and judge each; `share` and `seed` say how it was made."""
    own = StageInputs(ladder, inputs.data, inputs.context)
    lineage = [root]
    for stage in ladder.stages:
        log.info("pilot of %s: %d steps, seed %d", stage.name, stage.training.steps, ladder.stage_seed(stage))
        student = train_student(stage, lineage, own)
        lineage.append(evaluate_model(student, lineage, own, precision_of(ladder, stage.training)))
    forwards, examples = counted(ladder, inputs)
    flops, asked = operations_down(ladder, forwards, examples), answers_needed(ladder, examples)
    rows = min(ladder.evaluation.examples, inputs.data.corpus().info.documents["valid"])
    stages = (
        MeasuredStage(
            name=record.name,
            parameters=record.parameters,
            steps=record.steps,
            flops=spent,
            trained_flops=record.flops,
            loss=loss_of(record),
            rows=rows,
            learned=learned_nothing(record.metrics) is None,
            seconds=record.seconds,
            answering=record.all_signal_seconds or 0.0,
            answers=answers,
        )
        for record, spent, (answers, _) in zip(lineage[1:], flops, asked, strict=True)
    )
    return MeasuredSchedule(share=share, seed=seed, stages=tuple(stages))


def loss_of(record: StageRecord) -> float:
    """Bits per byte of a language model, the error rate of a classifier: of the record's evaluation."""
    return record.metrics["bits_per_byte"] if "bits_per_byte" in record.metrics else 1.0 - record.metrics["accuracy"]


def operations_down(ladder: Ladder, forwards: Sequence[Forward], examples: TrainingExamples) -> list[float]:
    """Operations of all trainings down to each stage; `forwards` begin with the root's."""
    total, down = 0.0, []
    for cost in ladder_flops(ladder, forwards, are_cached(ladder), examples):
        total += cost.total
        down.append(total)
    return down


def answers_needed(ladder: Ladder, examples: TrainingExamples) -> list[tuple[int, int]]:
    """Stored answers that each stage learns from, and how many of them no earlier stage has stored; 0 where its teachers answer live."""
    cached = are_cached(ladder)
    answers = answers_of(ladder, cached, AnswerCaches(examples))
    return [(sum(each.needed), sum(each.new)) if stored else (0, 0) for each, stored in zip(answers, cached, strict=True)]


def counted(ladder: Ladder, inputs: StageInputs) -> tuple[list[Forward], TrainingExamples]:
    """Operations of a forward pass of the root and of every student, and the examples of the data."""
    corpus = inputs.data.corpus()
    root, sizes = check_ladder(ladder, inputs.context, corpus)
    return [Forward.of(size) for size in (root, *sizes)], training_examples(corpus, any(are_cached(ladder)))


def are_cached(ladder: Ladder) -> list[bool]:
    """Of each stage of a settled ladder, whether its teachers answer from a cache."""
    return [stage.signals.source == "cached" for stage in ladder.stages]
