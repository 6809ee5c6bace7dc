"""Decides whether a model would be reused, resumed, imported or computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from conf.errors import UserError
from conf.schema.ladder import Ladder
from conf.schema.stage.training import Training
from conf.schema.teacher import AnswersTeacher, CheckpointTeacher, TrainedTeacher
from models.alignment.load import joint_hash
from models.architectures.shapes import Size
from models.base.device import precision_of
from models.data.corpus import Corpus
from models.embeddings.sentence_folder import model_sha256
from tasks.planning.costs.estimates import TrainingEstimate, estimate
from tasks.planning.costs.throughput import Throughput
from tasks.planning.preflight import expected_interface
from tasks.records.base import Record
from tasks.records.run import TEACHER, stage_record
from tasks.runtime.runs.run_registry import Context
from tasks.store.fingerprint import changes, fingerprint
from tasks.store.store import Store
from tasks.teachers.answer_file import answers_file
from tasks.teachers.answers import answers_identity
from tasks.teachers.other_tokenizer import other_tokenizer
from tasks.teachers.teacher_source import checkpoint_identity, resolve_checkpoint
from tasks.training.bake_off import KIND, choice_entry, read_choice, trial_stage
from tasks.training.costs.cost_model import Forward, training_flops
from tasks.training.costs.examples import examples_trained, training_examples
from tasks.training.identity import fine_tuning_identity, stage_identity, teacher_identity
from tasks.training.signals.signal_policy import chosen_signals
from tasks.training.teaching import planned_teaching

Action = Literal["compute", "resume", "reuse", "import"]
TO_TRAIN = ("compute", "resume")
UNKNOWN = "to be computed"  # in place of a hash that nothing has yet


class ModelPlan(Record):
    """Action planned for one model, and its price.

    Attributes:
        ratio: Parameters of its teacher over its own; None for the root.
        flops: Of training from the start, with the answers of its teachers; an answer that stages share is counted in the first of them.
        seconds: Estimated time of the same.
        memory_bytes: Estimated peak.
        resume_step: Step that a resumed training goes on from.
        changes: Differences from the newest result of this name, if it is computed again.
        members: Students of the rung, whose tokens, FLOPs and seconds are counted together; `action` is `reuse` once all are stored.
        stored: Members that are.
    """

    name: str
    action: Action
    fingerprint: str | None
    parameters: int | None
    non_embedding: int | None
    ratio: float | None
    tokens: int
    flops: float
    seconds: float
    memory_bytes: float
    resume_step: int | None = None
    changes: tuple[str, ...] = ()
    members: int = 1
    stored: int = 0

    def left(self, steps: int) -> float:
        """Share of the training that is ahead, where it has so many steps."""
        return 1 - (self.stored + (self.resume_step or 0) / max(steps, 1)) / self.members


@dataclass(frozen=True)
class PlanInputs:
    """Inputs of a plan; `corpus` is None and `data_hash` is `UNKNOWN` before the data are prepared."""

    ladder: Ladder
    context: Context
    store: Store
    corpus: Corpus | None
    data_hash: str
    throughput: Throughput

    def examples(self, training: Training, rationale: float | None) -> int:
        """Examples of a training that gives rationales a weight."""
        return examples_trained(self.ladder, training, rationale, training_examples(self.corpus, cached=False))

    def estimate(
        self, name: str, training: Training, rationale: float | None, size: Size, flops: float, teachers: list[Size]
    ) -> TrainingEstimate:
        """Tokens, time and memory of a training."""
        vocabulary, speed = expected_interface(self.ladder, self.corpus).vocabulary or 0, self.throughput.of(name, size.width)
        examples = self.examples(training, rationale)
        return estimate(training, examples, size, flops, speed, teachers, vocabulary, precision_of(self.ladder, training))


def plan_teacher(inputs: PlanInputs, size: Size | None, notes: list[str]) -> tuple[ModelPlan, str]:
    """The plan of the root teacher, and the hash of its weights; faults of a checkpoint become notes."""
    ladder, context = inputs.ladder, inputs.context
    if isinstance(ladder.teacher, TrainedTeacher):
        assert size is not None
        training = ladder.teacher.training
        identity = teacher_identity(ladder, ladder.teacher, precision_of(ladder, training), inputs.data_hash)
        flops = training_flops(Forward.of(size).whole, inputs.examples(training, ladder.teacher.rationale)).total
        estimated = inputs.estimate(TEACHER, training, ladder.teacher.rationale, size, flops, [])
        return plan_model(inputs, "teacher", TEACHER, identity, size, None, estimated, context.fresh and context.start_at is None)
    if isinstance(ladder.teacher, AnswersTeacher):
        return _plan_answers(inputs, ladder.teacher, notes)
    if ladder.teacher.training is not None and size is not None:
        return _plan_fine_tuning(inputs, ladder.teacher, ladder.teacher.training, size, notes)
    return _plan_import(inputs, ladder.teacher, size, notes)


def _plan_answers(inputs: PlanInputs, teacher: AnswersTeacher, notes: list[str]) -> tuple[ModelPlan, str]:
    """The plan of answers, which cost nothing here."""
    key, weights = None, UNKNOWN
    try:
        file = answers_file(teacher, inputs.context, inputs.ladder.workload)
        if inputs.data_hash != UNKNOWN:
            key = fingerprint(answers_identity(teacher, file, inputs.data_hash, inputs.ladder.workload))
    except UserError as error:
        notes.append(str(error))
    found = inputs.store.peek("teacher", key, stage_record) if key else None
    if found is not None:
        weights = stage_record(found.folder).weights_sha256
    plan = ModelPlan(
        name=TEACHER,
        action="import" if found is None else "reuse",
        fingerprint=key,
        parameters=teacher.parameters,
        non_embedding=teacher.parameters,
        ratio=None,
        tokens=0,
        flops=0.0,
        seconds=0.0,
        memory_bytes=0.0,
    )
    return plan, weights


def _plan_fine_tuning(
    inputs: PlanInputs, teacher: CheckpointTeacher, training: Training, size: Size, notes: list[str]
) -> tuple[ModelPlan, str]:
    """The plan of a checkpoint that is trained on."""
    ladder, context, data = inputs.ladder, inputs.context, inputs.data_hash
    try:
        checkpoint = checkpoint_identity(resolve_checkpoint(teacher, context), ladder.workload)
    except UserError as error:
        notes.append(str(error))
        checkpoint, data = {}, UNKNOWN
    identity = fine_tuning_identity(ladder, teacher, checkpoint, training, precision_of(ladder, training), data)
    flops = training_flops(Forward.of(size).whole, inputs.examples(training, teacher.rationale)).total
    estimated = inputs.estimate(TEACHER, training, teacher.rationale, size, flops, [])
    return plan_model(inputs, "teacher", TEACHER, identity, size, None, estimated, context.fresh and context.start_at is None)


def _plan_import(inputs: PlanInputs, teacher: CheckpointTeacher, size: Size | None, notes: list[str]) -> tuple[ModelPlan, str]:
    weights, teacher_fingerprint, action = UNKNOWN, None, "import"
    try:
        folder = resolve_checkpoint(teacher, inputs.context)
        identity = checkpoint_identity(folder, inputs.ladder.workload)
        weights, own = model_sha256(folder), inputs.corpus and other_tokenizer(folder, inputs.ladder, inputs.corpus)
        if own:
            identity, weights = {**identity, "tokenizer": own}, joint_hash(weights, own)
        teacher_fingerprint = fingerprint(identity)
        action = "reuse" if inputs.store.peek("teacher", teacher_fingerprint, stage_record) else "import"
    except UserError as error:
        notes.append(str(error))
    plan = ModelPlan(
        name=TEACHER,
        action="reuse" if action == "reuse" else "import",
        fingerprint=teacher_fingerprint,
        parameters=size.parameters if size else None,
        non_embedding=size.non_embedding if size else None,
        ratio=None,
        tokens=0,
        flops=0.0,
        seconds=0.0,
        memory_bytes=4.0 * (size.parameters if size else 0),
    )
    return plan, weights


def plan_model(
    inputs: PlanInputs,
    kind: str,
    name: str,
    identity: dict[str, Any],
    size: Size,
    above: Size | None,
    estimated: TrainingEstimate,
    fresh: bool,
) -> tuple[ModelPlan, str]:
    """The plan of a model that is trained here, and the hash of its weights.

    Args:
        inputs: Of the plan.
        kind: `teacher` or `stage`: the part of the store.
        name: Of the model.
        identity: Parts of its fingerprint.
        size: Of the model.
        above: Of the model above it; None for the root, or where it is unknown.
        estimated: Its training from the start.
        fresh: Whether it is computed anew whatever the store holds.
    """
    store, model_fingerprint = inputs.store, fingerprint(identity)
    complete = UNKNOWN not in (identity["data"], *identity.get("teachers", []), identity.get("parent"))
    found = store.peek(kind, model_fingerprint, stage_record) if complete and not fresh else None
    step = store.resumable(model_fingerprint) if complete and not fresh and not found else None
    latest = store.latest(kind, name, inputs.ladder.name) if not found and step is None else None
    plan = ModelPlan(
        name=name,
        action="reuse" if found else "resume" if step is not None else "compute",
        fingerprint=model_fingerprint if complete else None,
        parameters=size.parameters,
        non_embedding=size.non_embedding,
        ratio=above.parameters / size.parameters if above else None,
        resume_step=step,
        changes=tuple(changes(latest["identity"], identity)) if latest else (),
        **estimated._asdict(),
    )
    return plan, UNKNOWN if found is None else stage_record(found.folder).weights_sha256


def planned_choice(inputs: PlanInputs, place: int, lineage: Sequence[tuple[str, ...]]) -> int | None:
    """Place of the teacher that trials have chosen for a stage, 0 for the first stage; None: the store has no such choice.

    Args:
        inputs: Of the plan.
        place: Of the stage.
        lineage: Hashes of the weights of all rungs above it, each with its members, the root's first.
    """
    ladder, parent = inputs.ladder, lineage[-1][0]
    if inputs.corpus is None or UNKNOWN in {inputs.data_hash, *(weights for rung in lineage for weights in rung)}:
        return None
    stage = ladder.stages[place]
    trial, trials = trial_stage(stage, ladder, inputs.corpus.info), list[dict[str, Any]]()
    for above in reversed(range(place + 1)):
        teaching = planned_teaching(ladder, place, above)
        hashes = tuple(lineage[voice.place][voice.member] for voice in teaching.voices)
        signals = chosen_signals(trial, ladder, inputs.corpus.info)
        precision = precision_of(ladder, trial.training)
        trials.append(stage_identity(ladder, trial, precision, inputs.data_hash, hashes, parent, signals, teaching.identity()))
    found = inputs.store.peek(KIND, choice_entry(stage, ladder, trials, parent).fingerprint, read_choice)
    return read_choice(found.folder).place if found else None


def plan_of_rung(members: list[ModelPlan], flops: float) -> ModelPlan:
    """One plan for all students of a rung.

    Args:
        members: Of each, the rung's product first.
        flops: Of all together, exact.
    """
    first, stored = members[0], sum(each.action == "reuse" for each in members)
    if len(members) == 1:
        return first
    resumed = sum(each.resume_step or 0 for each in members)
    return first.model_copy(
        update={
            "action": "reuse" if stored == len(members) else "resume" if resumed else "compute",
            "tokens": sum(each.tokens for each in members),
            "flops": flops,
            "seconds": sum(each.seconds for each in members),
            "resume_step": resumed or None,
            "members": len(members),
            "stored": stored,
        }
    )
