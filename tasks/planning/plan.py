"""Plan a run: needs, time and cost of each model, without computing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from conf.errors import UserError
from conf.home import Home, free_bytes
from conf.schema.data import rounds_of
from conf.schema.ladder import Ladder
from conf.schema.stage.objective import weight_of_rationales
from conf.schema.stage.stage import Stage
from conf.schema.teacher import CheckpointTeacher
from conf.schema.workloads import answers_in_ids
from models.architectures.shapes import Size
from models.base.device import precision_of
from models.base.interface import Interface
from models.data.corpus import Corpus
from tasks.data.prepare import content_hash, counts_of, data_identity, read_corpus
from tasks.data.reading.known_hashes import PLANNED_BYTES, NotRead, known_hashes
from tasks.data.reading.sources import source_hash
from tasks.planning.costs.estimates import cache_bytes
from tasks.planning.costs.prices import Jump, PlanCosts, plan_costs
from tasks.planning.costs.throughput import expected_throughput
from tasks.planning.generated import NOTE, generated_data
from tasks.planning.matching import direct, flops_of, matched_single, settled, total_of
from tasks.planning.misfits import check_labels, check_weights
from tasks.planning.model_plan import TO_TRAIN, UNKNOWN, ModelPlan, PlanInputs, plan_model, plan_of_rung, plan_teacher, planned_choice
from tasks.planning.preflight import check_ladder, expected_interface
from tasks.planning.routes import routed
from tasks.planning.students import settle_students, settled_notes
from tasks.records.base import Record
from tasks.records.format import byte_size, duration, operations
from tasks.records.run import TEACHER
from tasks.runtime.runs.run_registry import PLAN, Context
from tasks.store.fingerprint import fingerprint
from tasks.store.store import Found, Store
from tasks.teachers.teacher_source import NotConverted
from tasks.training.costs.cost_model import Forward, StageFlops, ladder_flops
from tasks.training.costs.examples import TrainingExamples, training_examples
from tasks.training.identity import stage_identity
from tasks.training.signals.signal_policy import Choice, choose, describe, estimated_bytes, examples_of, outputs_of
from tasks.training.teaching import has_trials, member_stage, planned_teaching, trial_steps

# Gaps between teacher and student, in parameters without embeddings, that are large for one stage, and too large to trust.
WIDE, WIDER = 3.5, 5.0


class LadderPlan(Record):
    """The plan of a whole ladder."""

    ladder: str
    data: Literal["prepare", "reuse", "missing"]
    teacher: ModelPlan
    stages: tuple[ModelPlan, ...]
    seconds: float  # of the computations ahead
    flops: float
    basis: str  # where the estimated speed comes from
    notes: tuple[str, ...] = ()
    costs: PlanCosts


def make_plan(ladder: Ladder, base: Path, home: Home, start_at: str | None = None, fresh: bool = False) -> LadderPlan:
    """Plan a run.

    Raises:
        UserError: The ladder cannot run as it is described; see `check_ladder`.
    """
    context = Context(run=PLAN, ladder=ladder.name, home=str(home.root), base=str(base), start_at=start_at, fresh=fresh)
    settled = settle_students(ladder, context)
    notes = settled_notes(ladder, settled)
    store = Store(home, notes.append)
    if (ladder := settled).route not in ("as-written", "auto"):
        notes.append(f"the stages are those of the route {ladder.route}")
        ladder = routed(ladder.route, ladder)
    found, data_action = find_data(ladder, context, store, notes)
    corpus = Corpus(found.folder, content_hash(found)) if found else None
    counts = counts_of(found.folder) if found else None
    notes += [words for words in (counts.cut_in_words, counts.shared_in_words) if words] if counts else []
    root, sizes = check_ladder(ladder, context, corpus)
    notes += check_weights(ladder, context)
    if data_action == "prepare":
        notes += check_labels(ladder, context)
    inputs = PlanInputs(ladder, context, store, corpus, content_hash(found) if found else UNKNOWN, expected_throughput(home, ladder))
    teacher, weights = plan_teacher(inputs, root, notes)
    if ladder.data.generate is not None:
        rows = generated_data(ladder, context)
        notes += [NOTE] if rows is None else []
        inputs = replace(inputs, data_hash=UNKNOWN) if rows is None else replace(inputs, corpus=rows.corpus(), data_hash=rows.content_hash)
    notes += _unknown_sizes(ladder, root, corpus)
    choices = [choose(stage, ladder, corpus.info if corpus else None) for stage in ladder.stages]
    examples = training_examples(corpus, any(choice.cached for choice in choices))
    forwards = [Forward.of(size) for size in (root, *sizes)]
    flops = ladder_flops(ladder, forwards, [choice.cached for choice in choices], examples)
    models = (teacher, *_plan_stages(inputs, weights, [root, *sizes], choices, flops, notes))
    notes += _missing_before(models, ladder, start_at)
    if root is not None and ladder.teacher.source != "answers":
        needed = cache_bytes(ladder, [choice.cached for choice in choices], root.tokens, expected_interface(ladder, corpus), examples)
        if needed > (free := free_bytes(home)):
            notes.append(no_room(needed, free))
    notes += _rounds_note(ladder, models[1])
    left = {m.name: m.left(_steps(ladder, m.name)) for m in models if m.action in TO_TRAIN}
    seconds = sum(m.seconds * left[m.name] for m in models if m.name in left)
    jump = _jump(inputs, root, sizes[-1], examples, total_of(flops), notes)
    return LadderPlan(
        ladder=ladder.name,
        data=data_action,
        teacher=teacher,
        stages=models[1:],
        seconds=seconds,
        flops=sum(m.flops * left[m.name] for m in models if m.name in left),
        basis=inputs.throughput.basis,
        costs=_costs(ladder, models, seconds, jump),
        notes=tuple(dict.fromkeys(notes)),
    )


def _rounds_note(ladder: Ladder, first: ModelPlan) -> list[str]:
    """Note on the trainings by the rounds of `data.generate` beside the stages: the first one's student once more for each but the last."""
    if (rounds := rounds_of(ladder.data)) == 1:
        return []
    steps, times = _steps(ladder, first.name), "once" if rounds == 2 else f"up to {rounds - 1} times"
    each = f"{operations(first.flops * steps)} and about {duration(first.seconds * steps)}"
    return [
        f"the rounds of data.generate train {first.name} {times} more, {each} each, which the sums leave out; the gate may end them sooner"
    ]


def _plan_stages(
    inputs: PlanInputs, weights: str, sizes: Sequence[Size | None], choices: Sequence[Choice], flops: Sequence[StageFlops], notes: list[str]
) -> list[ModelPlan]:
    """Plans of all stages; `sizes` and `weights` begin with the root's."""
    ladder, context = inputs.ladder, inputs.context
    plans, lineage, reached = list[ModelPlan](), list[tuple[str, ...]]([(weights,)]), context.start_at is None
    for place, (stage, choice, cost) in enumerate(zip(ladder.stages, choices, flops, strict=True)):
        reached = reached or stage.name == context.start_at
        above, size, teaching, chosen = sizes[place], sizes[place + 1], planned_teaching(ladder, place), None
        assert size is not None
        if stage.signals.source != "live":
            interface = expected_interface(ladder, inputs.corpus)
            file = ladder.has_token_answers(stage) and len(teaching.voices) == 1
            notes.append(f"{stage.name}: {_signals_note(stage, choice, inputs.corpus, size, interface, file)}")
        taught = stage.objective.alpha.start or stage.objective.alpha.end or stage.objective.features
        teachers = [teacher for voice in teaching.voices if (teacher := sizes[voice.place]) is not None] if taught else []
        members, parent = list[tuple[ModelPlan, str]](), lineage[-1][0]
        if has_trials(stage, place):
            chosen = planned_choice(inputs, place, lineage)
            notes.append(f"{stage.name}: {_choice_note(stage, place, chosen)}")
            teaching = planned_teaching(ladder, place, chosen)
        for member in range(stage.members):
            identity = stage_identity(
                ladder,
                member_stage(ladder, stage, member),
                precision_of(ladder, stage.training),
                inputs.data_hash,
                tuple(lineage[voice.place][voice.member] for voice in teaching.voices),
                parent,
                stage.signals if choice.cached else None,
                teaching.identity(),
            )
            estimated = inputs.estimate(stage.name, stage.training, stage.objective.rationale, size, cost.total / stage.members, teachers)
            members.append(plan_model(inputs, "stage", stage.name, identity, size, above, estimated, context.fresh and reached))
        plans.append(plan_of_rung([plan for plan, _ in members], cost.total))
        lineage.append(tuple(weights for _, weights in members))
        notes.extend(_gap_note(stage, above, size))
    return plans


def _choice_note(stage: Stage, place: int, chosen: int | None) -> str:
    steps = trial_steps(stage)
    found = "" if chosen is None else "; this choice is in the store"
    return (
        f"trials of {steps} steps with each of the {place + 1} models above choose its teacher{found}; counted as if the root were chosen"
    )


def _jump(inputs: PlanInputs, root: Size | None, last: Size, examples: TrainingExamples, target: float, notes: list[str]) -> Jump | None:
    """The proof's arm `direct-matched`: the last student trained from the root, with as many operations as all stages."""
    ladder, corpus = inputs.ladder, inputs.corpus
    answers = ladder.teacher.source == "answers"  # which cost nothing and have no weights to begin with
    if (root is None and not answers) or (answers and ladder.stages[-1].student.initialisation != "random"):
        return None
    single = direct(settled(ladder, corpus.info if corpus else None))
    stage = single.stages[0]
    if stage.student.initialisation != "random":
        try:
            _, (last,) = check_ladder(single, inputs.context.model_copy(update={"start_at": None}), corpus)
        except UserError as error:
            notes.append(f"no jump from the root to {stage.name}: {error}")
            return None
    forwards = (Forward.of(root), Forward.of(last))
    single = matched_single(single, *forwards, examples, target)
    (cost,) = flops_of(single, forwards, examples)
    speed = inputs.throughput.of(stage.name, last.width)
    # In a jump the root has the larger part, at its own speed where that was measured.
    seconds = cost.student / speed + cost.answers / inputs.throughput.measured.get(TEACHER, speed)
    return Jump(stage.name, single.stages[0].training.steps, cost.total, seconds)


def _costs(ladder: Ladder, models: Sequence[ModelPlan], seconds: float, jump: Jump | None) -> PlanCosts:
    """Prices of the trainings that count, and of the jump, which needs the root's training as the stages do."""
    counted = models if ladder.economics.include_teacher else models[1:]
    if jump is not None and ladder.economics.include_teacher:
        jump = jump._replace(flops=jump.flops + models[0].flops, seconds=jump.seconds + models[0].seconds)
    return plan_costs(ladder.economics, seconds, [(model.flops, model.seconds) for model in counted], jump)


def _unknown_sizes(ladder: Ladder, root: Size | None, corpus: Corpus | None) -> list[str]:
    """Notes on operations that cannot be counted yet."""
    notes = []
    if root is None and isinstance(ladder.teacher, CheckpointTeacher):
        notes.append(
            "the teacher's size is unknown, so its forward passes are not counted; teacher.shape tells it before the checkpoint is there"
        )
    if corpus is None and any(stage.student.vocabulary == "used" for stage in ladder.stages):
        notes.append("student.vocabulary used: counted with all ids, as the data are not prepared yet; the students will be smaller")
    return notes


def _missing_before(models: Sequence[ModelPlan], ladder: Ladder, start_at: str | None) -> list[str]:
    """Notes on models above `--start-at` that are not finished."""
    before = models[: 1 + [stage.name for stage in ladder.stages].index(start_at)] if start_at else ()
    return [
        f"{model.name} comes before --start-at {start_at} and is not finished with these settings; the run would refuse to start"
        for model in before
        if model.action != "reuse"
    ]


def _gap_note(stage: Stage, above: Size | None, size: Size) -> list[str]:
    """A note on a stage that is far smaller than its teacher: capacity counts without embeddings."""
    gap = above.non_embedding / max(size.non_embedding, 1) if above else 1.0
    if gap <= WIDE:
        return []
    remedy = "a pilot (ladder prove --pilot) tells whether it can follow" if gap > WIDER else "gate.policy insert would put one in between"
    return [
        f"{stage.name}: {gap:.1f}x fewer parameters than its teacher, embeddings apart; above {WIDE:g}x is much for one stage: {remedy}"
    ]


def _signals_note(stage: Stage, choice: Choice, corpus: Corpus | None, size: Size, interface: Interface, file: bool) -> str:
    """Whether answers are live or cached, why, and the size of the cache; `file`: the root's answers alone, which are a file already."""
    if not choice.cached:
        return f"signals live ({choice.reason})"
    if file:
        return f"signals cached ({choice.reason}): {describe(stage.signals)} at most, read from the root's answers, no copy"
    text, rows = f"signals cached ({choice.reason}): {describe(stage.signals)}", size.tokens if answers_in_ids(interface.workload) else 1
    each = estimated_bytes(stage.signals, outputs_of(interface))
    if corpus is None:
        return f"{text}, about {each:.0f} bytes each"
    examples = min(stage.training.pool or stage.training.steps * stage.training.batch_size, examples_of(corpus.info))
    if weight_of_rationales(stage.objective.rationale):
        examples += examples * corpus.info.rationales // examples_of(corpus.info)
    return f"{text}, about {each:.0f} bytes each and {byte_size(examples * rows * each)} in all for each teacher"


def no_room(needed: float, free: int) -> str:
    """A note on caches that do not fit the disk."""
    remedy = "free some, move LADDER_HOME, lower signals.draws or signals.k, or set signals.source to live"
    return f"the caches of signals take about {byte_size(needed)}, and {byte_size(free)} are free: {remedy}"


def _steps(ladder: Ladder, name: str) -> int:
    trainings = {stage.name: stage.training for stage in ladder.stages}
    if ladder.teacher.training is not None:
        trainings[TEACHER] = ladder.teacher.training
    return trainings[name].steps if name in trainings else 1


def find_data(
    ladder: Ladder, context: Context, store: Store, notes: list[str]
) -> tuple[Found | None, Literal["prepare", "reuse", "missing"]]:
    """The prepared data in the store, and the action on them; faults become notes."""
    try:
        found = store.peek("data", fingerprint(data_identity(ladder, context)), read_corpus)
        return found, "reuse" if found else "prepare"
    except (NotConverted, NotRead) as note:
        notes.append(str(note))
        return None, "prepare"
    except UserError as error:
        notes.append(str(error))
    try:
        with known_hashes(context.paths.root, PLANNED_BYTES):
            source_hash(ladder.data, Path(context.base), ladder.workload)  # the teacher's tokenizer alone may have been missing
    except UserError as error:
        notes.append(str(error))
    return None, "missing"
