"""Train a student from its teachers, choose one of them, train longer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from conf.errors import LadderError, UserError
from conf.schema.ladder import Ladder
from conf.schema.stage.compatibility import check_members
from conf.schema.stage.stage import Stage
from conf.schema.stage.student import Student
from models.base.device import precision_of
from tasks.evaluation.evaluate import evaluate_model
from tasks.records.choice.teacher import TeacherChoice
from tasks.records.run import DataRecord, Extension, StageRecord
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import store_of
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.cached import Write, find_or_compute
from tasks.training.bake_off import (
    FILE,
    choice_entry,
    chosen_of,
    quiet_inputs,
    read_choice,
    trial_metric,
    trial_record,
    trial_stage,
    with_costs,
)
from tasks.training.find_or_train import find_or_train
from tasks.training.identity import stage_identity
from tasks.training.kept import kept_record
from tasks.training.signals.signal_policy import chosen_signals
from tasks.training.teaching import Voice, has_trials, kept_steps, member_stage, teaching_of
from tasks.training.work import Work

if TYPE_CHECKING:
    from torch import nn


def train_student(
    stage: Stage,
    lineage: Sequence[StageRecord],
    inputs: StageInputs,
    extension: Extension | None = None,
    member: int = 0,
    choice: TeacherChoice | None = None,
) -> StageRecord:
    """Find the student in the store, or train it.

    Args:
        stage: The stage.
        lineage: The models above it, root first, the parent last.
        inputs: Of all stages.
        extension: A further training after its gate.
        member: See `student_work`.
        choice: Of its teacher, where that was made before (teachers best).
    """
    if choice is None and has_trials(stage, len(lineage) - 1):
        choice = choose_teacher(stage, lineage, inputs)
    work = student_work(stage, lineage[-1], inputs.ladder, inputs.data, lineage, member, choice.place if choice else None)
    if (first := inputs.first_weights.get(stage.name)) is not None:
        work = replace(work, identity={**work.identity, "begins": first.weights_sha256}, make=_maker(first, work, inputs.ladder))
    if extension is not None:
        return _added(extension, find_or_train(extended(work, extension, inputs.ladder), inputs)).model_copy(update={"choice": choice})
    student = find_or_train(work, inputs)
    return with_costs(student, choice) if choice and member == 0 else student


def choose_teacher(stage: Stage, lineage: Sequence[StageRecord], inputs: StageInputs) -> TeacherChoice:
    """Find the choice of a stage's teacher in the store, or make it.

    Args:
        stage: With teachers best.
        lineage: Two or more models above it, root first.
        inputs: Of all stages.
    """
    ladder, context = inputs.ladder, inputs.context
    trial, places = trial_stage(stage, ladder, inputs.data.corpus().info), tuple(reversed(range(len(lineage))))
    works = []
    for place in places:
        work = student_work(trial, lineage[-1], ladder, inputs.data, lineage, chosen=place)
        works.append(replace(work, name=f"{stage.name} by {lineage[place].name}"))
    entry = choice_entry(stage, ladder, [work.identity for work in works], lineage[-1].weights_sha256)
    # No rungs of the ladder, so MLflow has no runs of them, but their figures with the stage's.
    fresh = context.is_fresh(stage.name)
    own = replace(quiet_inputs(inputs), context=context.model_copy(update={"mlflow_run_id": None, "fresh": fresh, "kept": ()}))

    def compute() -> Write:
        log.info("%s: %d ancestors teach it for %d steps each, to choose its teacher", stage.name, len(works), trial.training.steps)
        made = []
        for place, work in zip(places, works, strict=True):
            student = find_or_train(work, own)
            judged = evaluate_model(student, [], own, precision_of(ladder, stage.training))
            made.append(trial_record(lineage[place].name, place, judged, trial_metric(ladder)))
        choice = chosen_of(made, trial_metric(ladder), trial.training.steps)
        return lambda folder: (folder / FILE).write_text(choice.model_dump_json(indent=1), encoding="utf-8")

    found = find_or_compute(store_of(context), entry, context.made, compute, fresh=fresh)
    choice = read_choice(found.folder)
    named = tuple(each.model_copy(update={"teacher": lineage[each.place].name}) for each in choice.trials)
    choice = choice.model_copy(update={"trials": named})  # found again where these weights may have other names
    log.info("%s: %s", stage.name, choice.words)
    return choice


def extended(work: Work, extension: Extension, ladder: Ladder) -> Work:
    """A student's work, continued: the same objective and schedule over more steps, from the weights it has, on other batches."""
    training = work.training.model_copy(update={"steps": extension.steps})
    more = {"continues": extension.student.weights_sha256, "extension": extension.number, "steps": extension.steps}
    identity, make = {**work.identity, "extension": more}, _maker(extension.student, work, ladder)
    return replace(work, identity=identity, training=training, seed=work.seed + extension.number, make=make)


def _maker(student: StageRecord, work: Work, ladder: Ladder) -> Callable[[nn.Module | None, Path], nn.Module]:
    """Makes the model of a work with the weights of a student that was trained."""

    def make(teacher: nn.Module | None, aside: Path) -> nn.Module:
        from models.architectures.checkpoint import load_model

        model = load_model(Path(student.folder), ladder.workload)
        if work.identity["student"].get("vision") == "frozen":
            from models.multimodal.vision import freeze_vision

            freeze_vision(model)
        return model

    return make


def _added(extension: Extension, record: StageRecord) -> StageRecord:
    """The student's record with its costs since its first step."""
    before = extension.student
    sums = {name: getattr(before, name) + getattr(record, name) for name in ("steps", "tokens", "flops", "seconds", "signal_seconds")}
    return record.model_copy(update={**sums, "extensions": extension.number, "initial": before.initial})


def student_work(
    stage: Stage,
    parent: StageRecord,
    ladder: Ladder,
    data: DataRecord,
    lineage: Sequence[StageRecord] = (),
    member: int = 0,
    chosen: int | None = None,
) -> Work:
    """A stage as a piece of work for `find_or_train`.

    Args:
        stage: The stage.
        parent: The model above it, from which its first weights may be made.
        ladder: The whole ladder.
        data: The corpus.
        lineage: All models above it, root first and `parent` last, from which its teachers are chosen; empty: the parent alone.
        member: Which of the rung's students, with a seed of its own; 0: the rung's product.
        chosen: Place of its teacher in the lineage, 0 for the root (teachers best with several ancestors); None: as its `teachers` says.

    Raises:
        LadderError: The parent may not teach, because its gate stopped it.
        UserError: The root has no early checkpoints, which are to teach.
    """
    if parent.gate == "stopped":
        raise LadderError(f"{parent.name} was stopped by its gate and may not teach {stage.name}")
    precision, signals = precision_of(ladder, stage.training), chosen_signals(stage, ladder, data.corpus().info)
    above = lineage or (parent,)
    assert stage.teachers != ("best",) or len(above) == 1 or chosen is not None
    teaching = teaching_of(stage, [1 + len(each.members) for each in above], kept_steps(ladder), chosen)
    if teaching.has_members:
        check_members(stage.objective, signals.kind if signals else "live", key=stage.name)
    teachers = tuple(_spoken(above, voice) for voice in teaching.voices)
    hashes = tuple(_rung(above, voice).weights_sha256 for voice in teaching.voices)
    key = f"stages[{ladder.stages.index(stage)}].student" if stage in ladder.stages else f"{stage.name}.student"

    stage = member_stage(ladder, stage, member)
    seed = ladder.stage_seed(stage)
    identity = stage_identity(ladder, stage, precision, data.content_hash, hashes, parent.weights_sha256, signals, teaching.identity())

    def make(teacher: nn.Module | None, aside: Path) -> nn.Module:
        from tasks.training.initialise import initialise

        assert teacher is not None
        model = initialise(stage.student, teacher, data.corpus(), seed, key, aside)
        own = sum(p.numel() for p in model.parameters())
        if own > parent.parameters:
            raise larger(origin(stage.student, key), stage.name, own, parent.name, parent.parameters)
        return model

    used, weights = stage.student.vocabulary, stage.objective.class_weights
    objective, turns = stage.objective, teaching.turns if teachers else None
    if teaching.has_members:  # of which one teacher at a time is asked
        objective = objective.model_copy(update={"combine": "mean"})
    return Work(
        stage.name,
        "stage",
        identity,
        stage.training,
        objective,
        seed,
        make,
        teachers,
        used,
        signals,
        weights,
        parent,
        turns,
        writing=stage.signals if stage.signals.on_policy else None,
        served=stage.signals if stage.signals.endpoint is not None else None,
        rationale=objective.rationale,
    )


def _rung(lineage: Sequence[StageRecord], voice: Voice) -> StageRecord:
    """The record of a model that teaches; of an early checkpoint that of the finished model."""
    rung = lineage[voice.place]
    return rung.members[voice.member - 1] if voice.member else rung


def _spoken(lineage: Sequence[StageRecord], voice: Voice) -> StageRecord:
    """The record of a model that teaches."""
    rung = _rung(lineage, voice)
    return rung if voice.kept is None else kept_record(rung, voice.kept)


def origin(student: Student, key: str) -> str:
    """Dotted key of the setting that makes a student."""
    return f"{key}.path" if student.source == "checkpoint" else f"{key}.config" if student.config is not None else f"{key}.shape"


def larger(key: str, student: str, parameters: int, teacher: str, teacher_parameters: int) -> UserError:
    """The error for a student that is larger than its teacher."""
    return UserError.about(
        key,
        f"{student} with {parameters:,} parameters",
        f"at most the {teacher_parameters:,} of its teacher, {teacher}",
        "Make the student smaller, or order the stages from large to small.",
    )
