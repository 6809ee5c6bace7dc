"""What a run would do and cost, before it is paid for. Computes nothing and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from conf.errors import UserError
from conf.home import Home
from conf.schema.ladder import CheckpointTeacher, Ladder, Shape, Stage, TrainedTeacher
from conf.schema.objective import Objective
from conf.schema.training import Training
from models.architectures.shapes import Size
from models.base.device import precision_of
from models.base.interface import Interface
from models.data.corpus import Corpus
from models.losses.chunked import CHUNK_ELEMENTS
from tasks.data.prepare import content_hash, data_identity
from tasks.data.sources import source_hash
from tasks.planning.costs import PlanCosts, plan_costs
from tasks.planning.preflight import check_ladder, expected_interface
from tasks.planning.throughput import Pace, expected_pace
from tasks.records.base import Record
from tasks.records.run import TEACHER
from tasks.runtime.run_registry import PLAN, Context
from tasks.store.fingerprint import changes, fingerprint
from tasks.store.store import Found, Store
from tasks.teachers.teacher_source import NotConverted, checkpoint_identity, resolve_checkpoint
from tasks.training.identity import stage_identity, teacher_identity, teachers_of
from tasks.training.signal_policy import Choice, choose, describe, estimated_bytes, examples_of, outputs_of

Action = Literal["compute", "resume", "reuse", "import"]
TO_TRAIN = ("compute", "resume")
UNKNOWN = "to be computed"
WIDE, WIDER = (
    3.5,
    5.0,
)  # gaps between teacher and student, in parameters without embeddings, that are much for one stage, and too much to trust


class ModelPlan(Record):
    """What will happen to one model, and its price.

    Attributes:
        ratio: Parameters of its teacher over its own; None for the root.
        flops: Of training, the teacher's forward passes counted.
        seconds: Estimated time of training from the start.
        memory_bytes: Estimated peak.
        resume_step: Step that a resumed training goes on from.
        changes: What differs from the newest result of this name, if it is computed again.
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


class LadderPlan(Record):
    """The plan of a whole ladder."""

    ladder: str
    data: Literal["prepare", "reuse", "missing"]
    teacher: ModelPlan
    stages: tuple[ModelPlan, ...]
    seconds: float  # of what is to be computed
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
    store, notes = Store(home), list[str]()
    found, data_action = _data(ladder, context, store, notes)
    corpus = Corpus(found.folder, content_hash(found)) if found else None
    root, sizes = check_ladder(ladder, context, corpus)
    data_hash = content_hash(found) if found else UNKNOWN
    pace = expected_pace(home, ladder)
    teacher, weights = _plan_teacher(ladder, context, store, root, data_hash, pace, notes)
    if root is None and isinstance(ladder.teacher, CheckpointTeacher):
        notes.append("the teacher's size is unknown, so its forward passes are not counted; teacher.shape tells it before it is at hand")
    if corpus is None and any(stage.student.vocabulary == "used" for stage in ladder.stages):
        notes.append("student.vocabulary used: counted with all ids, as the data are not prepared yet; the students will be smaller")
    plans: list[ModelPlan] = []
    vocabulary = expected_interface(ladder, corpus).vocabulary or 0
    above, reached, lineage, known = root, start_at is None, [weights], [root]
    for stage, size in zip(ladder.stages, sizes, strict=True):
        reached = reached or stage.name == start_at
        choice = choose(stage, ladder, corpus.info if corpus else None)
        if stage.signals.source != "live":
            notes.append(f"{stage.name}: {_signals_note(stage, choice, corpus, size, expected_interface(ladder, corpus))}")
        signals, precision = stage.signals if choice.cached else None, precision_of(ladder, stage.training)
        identity = stage_identity(ladder, stage, precision, data_hash, teachers_of(stage, lineage), weights, signals)
        price = _price(
            stage.training,
            stage.objective,
            size,
            [teacher for teacher in teachers_of(stage, known) if teacher is not None],
            stage.student.shape,
            vocabulary,
            ladder,
            pace.of(stage.name, stage.student.shape.hidden_size),
            _share_of_new(stage, corpus) if choice.cached else None,
        )
        plan, weights = _decide(store, "stage", stage.name, identity, size, above, price, ladder.name, fresh and reached)
        plans.append(plan)
        lineage.append(weights)
        notes.extend(_gap_note(stage, above, size))
        known.append(size)
        above = size
    models = (teacher, *plans)
    before = models[: 1 + [stage.name for stage in ladder.stages].index(start_at)] if start_at else ()
    for model in before:
        if model.action != "reuse":
            notes.append(
                f"{model.name} comes before --start-at {start_at} and is not finished with these settings; the run would refuse to start"
            )
    todo = {model.name: 1 - (model.resume_step or 0) / max(_steps(ladder, model.name), 1) for model in models if model.action in TO_TRAIN}
    seconds = sum(m.seconds * todo[m.name] for m in models if m.name in todo)
    return LadderPlan(
        ladder=ladder.name,
        data=data_action,
        teacher=teacher,
        stages=tuple(plans),
        seconds=seconds,
        flops=sum(m.flops * todo[m.name] for m in models if m.name in todo),
        basis=pace.basis,
        notes=tuple(dict.fromkeys(notes)),
        costs=_costs(ladder, models, seconds, root, sizes[-1], vocabulary, pace),
    )


def _costs(
    ladder: Ladder, models: Sequence[ModelPlan], seconds: float, root: Size | None, last: Size, vocabulary: int, pace: Pace
) -> PlanCosts:
    """Prices, beside those of one jump from the root to the last student, which is taught as its own stage says."""
    stage = ladder.stages[-1]
    shape = stage.student.shape
    speed = pace.of(stage.name, shape.hidden_size)
    direct = _price(stage.training, stage.objective, last, [root], shape, vocabulary, ladder, speed) if root else None
    if direct and TEACHER in pace.known:  # in a jump the root has the larger part, at the speed that it was seen to have
        own = direct["tokens"] * 3 * last.forward_flops / last.tokens
        direct["seconds"] = own / speed + (direct["flops"] - own) / pace.known[TEACHER]
    counted = [(model.flops, model.seconds) for model in (models if ladder.economics.include_teacher else models[1:])]
    return plan_costs(ladder.economics, seconds, counted, stage.name, stage.training.steps, direct)


def _gap_note(stage: Stage, above: Size | None, size: Size) -> list[str]:
    """What to say of a stage that is far smaller than its teacher: capacity counts without embeddings."""
    gap = above.non_embedding / max(size.non_embedding, 1) if above else 1.0
    if gap <= WIDE:
        return []
    remedy = "a pilot (ladder prove --pilot) tells whether it can follow" if gap > WIDER else "gate.policy insert would put one in between"
    return [
        f"{stage.name}: {gap:.1f}x fewer parameters than its teacher, embeddings apart; above {WIDE:g}x is much for one stage: {remedy}"
    ]


def _share_of_new(stage: Stage, corpus: Corpus | None) -> float:
    """Share of a training's examples that it sees for the first time."""
    examples = stage.training.steps * stage.training.batch_size
    return min(1.0, examples_of(corpus.info) / examples) if corpus else 1.0


def _signals_note(stage: Stage, choice: Choice, corpus: Corpus | None, size: Size, interface: Interface) -> str:
    """How the teacher will be asked, why, and what a cache of its answers takes."""
    if not choice.cached:
        return f"signals live ({choice.reason})"
    text, rows = f"signals cached ({choice.reason}): {describe(stage.signals)}", size.tokens if interface.workload == "causal-lm" else 1
    each = estimated_bytes(stage.signals, outputs_of(interface))
    if corpus is None:
        return f"{text}, about {each:.0f} bytes each"
    examples = min(stage.training.steps * stage.training.batch_size, examples_of(corpus.info))
    return f"{text}, about {each:.0f} bytes each and {examples * rows * each / 1e6:,.1f} MB in all for each teacher"


def _steps(ladder: Ladder, name: str) -> int:
    trainings = {stage.name: stage.training for stage in ladder.stages}
    if isinstance(ladder.teacher, TrainedTeacher):
        trainings[TEACHER] = ladder.teacher.training
    return trainings[name].steps if name in trainings else 1


def _data(ladder: Ladder, context: Context, store: Store, notes: list[str]) -> tuple[Found | None, Literal["prepare", "reuse", "missing"]]:
    try:
        found = store.peek("data", fingerprint(data_identity(ladder, context)))
        return found, "reuse" if found else "prepare"
    except NotConverted as note:
        notes.append(str(note))
        return None, "prepare"
    except UserError as error:
        notes.append(str(error))
    try:
        source_hash(ladder.data, Path(context.base))  # what was missing may have been the teacher's tokenizer alone
    except UserError as error:
        notes.append(str(error))
    return None, "missing"


def _plan_teacher(
    ladder: Ladder, context: Context, store: Store, size: Size | None, data_hash: str, pace: Pace, notes: list[str]
) -> tuple[ModelPlan, str]:
    teacher = ladder.teacher
    if isinstance(teacher, TrainedTeacher):
        assert size is not None
        identity = teacher_identity(ladder, teacher, precision_of(ladder, teacher.training), data_hash)
        vocabulary = expected_interface(ladder, None).vocabulary or 0
        price = _price(teacher.training, None, size, (), teacher.shape, vocabulary, ladder, pace.of(TEACHER, teacher.shape.hidden_size))
        return _decide(store, "teacher", TEACHER, identity, size, None, price, ladder.name, context.fresh and context.start_at is None)
    weights, mark, action = UNKNOWN, None, "import"
    try:
        identity = checkpoint_identity(resolve_checkpoint(teacher, context), ladder.workload)
        weights, mark = identity["weights"], fingerprint(identity)
        action = "reuse" if store.peek("teacher", mark) else "import"
    except UserError as error:
        notes.append(str(error))
    counted = (size.parameters, size.non_embedding) if size else (None, None)
    plan = ModelPlan(
        name=TEACHER,
        action="reuse" if action == "reuse" else "import",
        fingerprint=mark,
        parameters=counted[0],
        non_embedding=counted[1],
        ratio=None,
        tokens=0,
        flops=0.0,
        seconds=0.0,
        memory_bytes=4.0 * (counted[0] or 0),
    )
    return plan, weights


def _decide(
    store: Store,
    kind: str,
    name: str,
    identity: dict[str, Any],
    size: Size,
    above: Size | None,
    price: dict[str, float],
    ladder: str,
    fresh: bool,
) -> tuple[ModelPlan, str]:
    mark = fingerprint(identity)
    known = UNKNOWN not in (identity["data"], *identity.get("teachers", []), identity.get("parent"))
    found = store.peek(kind, mark) if known and not fresh else None
    step = store.resumable(mark) if known and not fresh and not found else None
    latest = store.latest(kind, name, ladder) if not found and step is None else None
    plan = ModelPlan(
        name=name,
        action="reuse" if found else "resume" if step is not None else "compute",
        fingerprint=mark if known else None,
        parameters=size.parameters,
        non_embedding=size.non_embedding,
        ratio=above.parameters / size.parameters if above else None,
        tokens=int(price["tokens"]),
        flops=price["flops"],
        seconds=price["seconds"],
        memory_bytes=price["memory"],
        resume_step=step,
        changes=tuple(changes(latest["identity"], identity)) if latest else (),
    )
    if found is None:
        return plan, UNKNOWN
    return plan, json.loads((found.folder / "record.json").read_text())["weights_sha256"]


def _price(
    training: Training,
    objective: Objective | None,
    size: Size,
    above: Sequence[Size],
    shape: Shape,
    vocabulary: int,
    ladder: Ladder,
    speed: float,
    cached: float | None = None,
) -> dict[str, float]:
    """Tokens, FLOPs, seconds and bytes of a training from its start; `cached`: share of the tokens that a cache asks its teachers for."""
    positions = training.steps * training.batch_size * size.tokens
    teaches = objective is not None and bool(above) and bool(objective.alpha.start or objective.alpha.end or objective.features)
    per_token = 3 * size.forward_flops / size.tokens
    if teaches and objective is not None:
        asked = 1.0 if len(above) == 1 else objective.keep + (1 - objective.keep) ** len(above) / len(above)
        asked = asked if cached is None else cached
        per_token += asked * sum(teacher.forward_flops / teacher.tokens for teacher in above)
    micro = training.batch_size // training.accumulation * size.tokens
    bytes_each = 2 if precision_of(ladder, training) == "bf16" else 4
    # Weights, gradients and AdamW's two moments in fp32; the frozen teacher; activations of a layer as Korthikanti et al. 2022
    # (arXiv:2205.05198) count them without the attention matrix, of every layer, or of one and what lies between all of them; five
    # copies of a chunk of logits in fp32 for each model.
    memory = 16.0 * size.parameters + sum(4.0 * teacher.parameters for teacher in above)
    layer, between = 17 * bytes_each, 4
    memory += micro * shape.hidden_size * (layer + shape.layers * between if training.recompute else shape.layers * layer)
    memory += min(micro * max(vocabulary, 1), CHUNK_ELEMENTS["cpu"]) * 4 * 5 * (2 if teaches else 1)
    return {"tokens": positions, "flops": positions * per_token, "seconds": positions * per_token / speed, "memory": memory}
