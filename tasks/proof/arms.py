"""The arms of a proof: each a rewriting of the ladder, run by the same flow and loop as the ladder itself.

Arms share data, evaluation, root teacher and, by seed, the order of the data and the first weights of students of one shape. What they
differ in is stated in `MEANING`. FLOPs are those of training: three forward passes of the student, one of each teacher that is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from conf.errors import UserError
from conf.schema.gate import Gate
from conf.schema.ladder import Ladder, Stage
from conf.schema.objective import Alpha, Objective
from conf.schema.proof import ARMS, Arm
from models.data.corpus import CorpusInfo
from tasks.training.identity import identity_of_signals, teachers_of, untaught
from tasks.training.signal_policy import choose

PILOT = 0.1  # share of every student's steps in a pilot
LEAST_STEPS = 10

MEANING: dict[Arm, str] = {
    "staged": "the ladder as it stands",
    "staged-root": "the ladder's first weights, but the root teaches every student",
    "ancestors": "the ladder, but all models above a student teach it (DGKD)",
    "direct": "the root teaches the last student, on as many tokens as in the ladder",
    "direct-matched": "the root teaches the last student, with the FLOPs of the whole ladder",
    "direct-free": "the root teaches the last student, with the FLOPs of the ladder's last hop: the assistants are free",
    "scratch": "the last student from random weights and labels alone, with the FLOPs of the whole ladder",
    "label-smoothing": "as scratch, with smoothed labels in place of a teacher",
    "pruned-only": "the last student as initialisation from the root gives it, without training",
}


class Prices(NamedTuple):
    """Operations of a forward pass over one example, and how many examples an epoch has."""

    root: float
    students: tuple[float, ...]  # of the ladder, in its order
    direct: float  # of the last student, initialised from the root
    scratch: float  # of the last student, with random weights
    examples: int


def settled(ladder: Ladder, info: CorpusInfo) -> Ladder:
    """The ladder as all arms start from it: no gate ends or changes an arm, and teachers are asked as in the whole ladder.

    In an arm of one stage, `signals.source: auto` might choose otherwise than in the ladder.
    """

    def stage(old: Stage) -> Stage:
        source = "cached" if choose(old, ladder, info).cached else "live"
        return old.model_copy(update={"gate": Gate(), "signals": old.signals.model_copy(update={"source": source})})

    whole = ladder.model_copy(update={"stages": tuple(map(stage, ladder.stages))})
    return _shortened(whole, PILOT) if ladder.proof.pilot else whole


def _shortened(ladder: Ladder, share: float) -> Ladder:
    def steps(stage: Stage) -> int:
        return max(min(LEAST_STEPS, stage.training.steps), round(stage.training.steps * share))

    return ladder.model_copy(update={"stages": tuple(_lasting(stage, steps(stage)) for stage in ladder.stages)})


def replicate(ladder: Ladder, number: int) -> Ladder:
    """An arm with the seeds of its `number`-th replicate; 0: the ladder's own, so that what `ladder run` computed is found."""
    stages = (stage.model_copy(update={"seed": (ladder.stage_seed(stage) + number) % 2**31}) for stage in ladder.stages)
    return ladder.model_copy(update={"stages": tuple(stages)})


def watched(ladder: Ladder, looked_at: bool) -> Ladder:
    """An arm with the audits and measurements that it gets: the ladder itself once, beside an untaught control; no other arm any."""
    audit, bench = ladder.audit, ladder.bench
    seen = {"enabled": audit.enabled and looked_at, "control": ladder.proof.control and audit.enabled and looked_at}
    return ladder.model_copy(
        update={"audit": audit.model_copy(update=seen), "bench": bench.model_copy(update={"after_stage": bench.after_stage and looked_at})}
    )


def rewritten(arm: Arm, ladder: Ladder, prices: Prices) -> Ladder:
    """The ladder that an arm runs, from a settled ladder.

    Raises:
        UserError: It cannot be, or is the same as another arm.
    """
    refuse(arm, ladder)
    return REWRITINGS[arm](ladder, prices)


def refuse(arm: Arm, ladder: Ladder) -> None:
    """Refuse an arm that the ladder cannot have, or that would be another one under a second name.

    Raises:
        UserError: With the reason.
    """
    last, single = ladder.stages[-1], len(ladder.stages) == 1
    initialisation = last.student.initialisation
    if single and arm in ("staged", "staged-root", "ancestors", "direct-matched", "direct-free"):
        raise impossible(arm, f"direct, scratch, label-smoothing and pruned-only, as {ladder.name} has one stage", "It is direct already.")
    for same, choice in (("staged-root", ("root",)), ("ancestors", ("ancestors",))):
        if arm == same and all(stage.teachers == choice for stage in ladder.stages):
            raise impossible(arm, f"staged, as the ladder's stages have teachers {choice[0]} already", "Leave it out.")
    if arm == "staged-root" and initialisation == "random":
        allowed = f"direct, as {last.name} starts from random weights: without its assistants' weights and teaching it is the same"
        raise impossible(arm, allowed, "Leave it out.")
    if arm == "ancestors" and (named := [stage.name for stage in ladder.stages if stage.objective.features]):
        raise impossible(arm, f"an arm with one teacher, for the features of {', '.join(named)}", "Leave it or objective.features out.")
    if arm == "pruned-only" and initialisation == "random":
        allowed = f"a last student that starts from its teacher (initialisation layers or prune); {last.name} starts from random weights"
        raise impossible(arm, allowed, "Leave it out.")


def impossible(arm: Arm, allowed: str, remedy: str) -> UserError:
    """The error for an arm that the ladder cannot have."""
    return UserError.about("proof.arms", arm, allowed, remedy)


def flops(ladder: Ladder, prices: tuple[float, ...], root: float, epoch: int) -> float:
    """Operations of all trainings of an arm.

    A live teacher is asked for every example, several of them as often as `objective.keep` lets them; a cached one once for every
    example, whichever of the arm's students ask.

    Args:
        ladder: The arm; its steps are taken as they stand.
        prices: Forward operations of its students for one example.
        root: The same of the root teacher.
        epoch: Training examples of the data.
    """
    above, total, cached = [0], 0.0, dict[tuple[int, str, str], int]()
    known = [root, *prices]
    for place, stage in enumerate(ladder.stages, 1):
        examples = stage.training.steps * stage.training.batch_size
        total += 3 * known[place] * examples
        alpha, objective = stage.objective.alpha, stage.objective
        asked = teachers_of(stage, above) if alpha.start or alpha.end or objective.features else ()
        if choose(stage, ladder, None).cached:
            for teacher in asked:
                key = (teacher, str(identity_of_signals(stage.signals)), stage.student.vocabulary)
                cached[key] = max(cached.get(key, 0), min(examples, epoch))
        else:
            share = 1.0 if len(asked) == 1 else objective.keep + (1 - objective.keep) ** len(asked) / max(len(asked), 1)
            total += share * examples * sum(known[teacher] for teacher in asked)
        above.append(place)
    return total + sum(count * known[teacher] for (teacher, *_), count in cached.items())


def matched(stage: Stage, cost: Callable[[Stage], float], target: float) -> Stage:
    """The stage with as many steps as come nearest to a number of operations, one at least.

    Args:
        stage: Any steps.
        cost: Operations of a stage; grows with its steps.
        target: Operations wanted.
    """
    low, high = 0, 1
    while cost(_lasting(stage, high)) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(_lasting(stage, middle)) < target else (low, middle)
    nearer = low and target - cost(_lasting(stage, low)) < cost(_lasting(stage, high)) - target
    return _lasting(stage, low if nearer else high)


def _lasting(stage: Stage, steps: int) -> Stage:
    return stage.model_copy(update={"training": stage.training.model_copy(update={"steps": steps})})


def _with(ladder: Ladder, *stages: Stage) -> Ladder:
    return ladder.model_copy(update={"stages": stages})


def _taught_by(choice: str) -> Callable[[Ladder, Prices], Ladder]:
    return lambda ladder, prices: _with(ladder, *(stage.model_copy(update={"teachers": (choice,)}) for stage in ladder.stages))


def _whole(ladder: Ladder, prices: Prices) -> float:
    return flops(ladder, prices.students, prices.root, prices.examples)


def _last_hop(ladder: Ladder, prices: Prices) -> float:
    before = _with(ladder, *ladder.stages[:-1])
    return _whole(ladder, prices) - flops(before, prices.students[:-1], prices.root, prices.examples)


def direct(ladder: Ladder) -> Ladder:
    """The last student, taught by the root and, where its first weights are a teacher's, made from the root."""
    return _with(ladder, ladder.stages[-1].model_copy(update={"teachers": ("parent",)}))


def _direct_for(target: Callable[[Ladder, Prices], float]) -> Callable[[Ladder, Prices], Ladder]:
    def rewrite(ladder: Ladder, prices: Prices) -> Ladder:
        single = direct(ladder)
        cost = _cost_of(single, prices.direct, prices)
        return _with(ladder, matched(single.stages[0], cost, target(ladder, prices)))

    return rewrite


def _cost_of(ladder: Ladder, price: float, prices: Prices) -> Callable[[Stage], float]:
    return lambda stage: flops(_with(ladder, stage), (price,), prices.root, prices.examples)


def scratch(ladder: Ladder) -> Ladder:
    """The last student from random weights and labels alone."""
    last = ladder.stages[-1]
    student = last.student.model_copy(update={"initialisation": "random"})
    return _with(ladder, untaught(last).model_copy(update={"student": student}))


def _scratch_matched(ladder: Ladder, prices: Prices) -> Ladder:
    single = scratch(ladder)
    return _with(ladder, matched(single.stages[0], _cost_of(single, prices.scratch, prices), _whole(ladder, prices)))


def _label_smoothing(ladder: Ladder, prices: Prices) -> Ladder:
    stage = _scratch_matched(ladder, prices).stages[0]
    return _with(ladder, stage.model_copy(update={"objective": Objective(alpha=Alpha(start=ladder.proof.smoothing))}))


REWRITINGS: dict[Arm, Callable[[Ladder, Prices], Ladder]] = {
    "staged": lambda ladder, prices: ladder,
    "staged-root": _taught_by("root"),
    "ancestors": _taught_by("ancestors"),
    "direct": lambda ladder, prices: direct(ladder),
    "direct-matched": _direct_for(_whole),
    "direct-free": _direct_for(_last_hop),
    "scratch": _scratch_matched,
    "label-smoothing": _label_smoothing,
    "pruned-only": lambda ladder, prices: _with(ladder, _lasting(direct(ladder).stages[0], 0)),
}
assert tuple(REWRITINGS) == ARMS


def arm_flops(arm: Arm, ladder: Ladder, prices: Prices) -> float:
    """Operations of an arm as it was rewritten."""
    if arm in ("staged", "staged-root", "ancestors"):
        return _whole(ladder, prices)
    single = prices.scratch if arm in ("scratch", "label-smoothing") else prices.direct
    return flops(ladder, (single,), prices.root, prices.examples)
