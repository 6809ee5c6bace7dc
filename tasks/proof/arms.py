"""Rewrites a ladder into the arms of a proof.

Each arm is a ladder, run by the same flow and loop.

Arms share data, evaluation, root teacher and, by seed, the order of the data and the first weights of students of one shape. Their
differences are stated in `MEANING`. FLOPs are those of `tasks.training.costs.cost_model`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from conf.errors import UserError
from conf.schema.ladder import Ladder
from conf.schema.measures.proof import ARMS, ROUTE_ARMS, Arm, RouteArm
from conf.schema.stage.stage import Stage, Teachers
from models.data.corpus import CorpusInfo
from tasks.planning.matching import (
    direct,
    flops_of,
    lasting,
    matched_single,
    matched_whole,
    reseeded,
    settled,
    shortened,
    taught,
    total_of,
    with_stages,
)
from tasks.planning.routes import refusal, routed
from tasks.records.base import Record
from tasks.training.costs.cost_model import Forward, StageFlops
from tasks.training.costs.examples import TrainingExamples
from tasks.training.identity import untaught

PILOT = 0.1  # share of every student's steps in a pilot
FROM_ROOT: tuple[Arm, ...] = ("direct", "direct-matched", "direct-free", "pruned-only")
TAUGHT_BY: dict[Arm, Teachers] = {"staged-root": "root", "ancestors": "ancestors"}

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
    "direct-cached": "route direct-cached: as direct-matched, from stored answers of fewer examples, each read several times",
    "root-cached": "route root-cached: the root's one cache teaches every student; the last is trained until FLOPs are the ladder's",
    "curriculum": "route curriculum: teachers hand over within the last training, at the FLOPs of the ladder",
    "ensemble": "route ensemble: three seeds of the last assistant teach together; all stages shortened until FLOPs are the ladder's",
    "best-of-rungs": "route best-of-rungs: trials choose each student's teacher; all stages shortened until FLOPs are the ladder's",
    "self": "route self: a further student of the last one's size, taught by it; all stages shortened until FLOPs are the ladder's",
    "auto": "route auto: pilots choose the route, and the winner has the rest: together the FLOPs of the whole ladder",
}


class ForwardFlops(Record):
    """Operations of a forward pass over one example, and the examples that a training sees.

    Attributes:
        students: Of the ladder, in its order.
        direct: Of the last student, initialised from the root.
        scratch: Of the last student, with random weights.
    """

    root: Forward
    students: tuple[Forward, ...]
    direct: Forward
    scratch: Forward
    examples: TrainingExamples


Rewriting = Callable[[Ladder, ForwardFlops, Sequence[int] | None], Ladder]


def shared_settings(ladder: Ladder, info: CorpusInfo) -> Ladder:
    """The ladder as all arms start from it: settled, its stages as written, and with fewer steps for a pilot."""
    whole = settled(ladder.model_copy(update={"route": "as-written"}), info)
    if not ladder.proof.pilot:
        return whole
    return shortened(whole, PILOT)


def auto_arm(base: Ladder, written: Ladder) -> Ladder:
    """The settled ladder with `route: auto`, which caches for itself: `signals.source: auto` is open again where it was settled to live."""

    def stage(now: Stage, before: Stage) -> Stage:
        is_open = before.signals.source == "auto" and now.signals.source == "live"
        return now.model_copy(update={"signals": before.signals}) if is_open else now

    stages = (stage(now, before) for now, before in zip(base.stages, written.stages, strict=True))
    return with_stages(base, *stages).model_copy(update={"route": "auto"})


def replicate(ladder: Ladder, number: int) -> Ladder:
    """An arm with the seeds of its `number`-th replicate; 0: the ladder's own, so that results of `ladder run` are found."""
    return reseeded(ladder, number)


def watched(ladder: Ladder, looked_at: bool) -> Ladder:
    """An arm with the audits and measurements that it gets: the ladder itself once, beside an untaught control; no other arm any."""
    audit, bench = ladder.audit, ladder.bench
    seen = {"enabled": audit.enabled and looked_at, "control": ladder.proof.control and audit.enabled and looked_at}
    return ladder.model_copy(
        update={"audit": audit.model_copy(update=seen), "bench": bench.model_copy(update={"after_stage": bench.after_stage and looked_at})}
    )


def rewritten(arm: Arm, ladder: Ladder, forwards: ForwardFlops, taken: Sequence[int] | None = None) -> Ladder:
    """The ladder that an arm runs.

    Args:
        arm: Which.
        ladder: With the settings that all arms share.
        forwards: Of its models.
        taken: Steps that the trainings of `staged` took, which matched arms follow; None: those of the schedules.

    Raises:
        UserError: It cannot be, or is the same as another arm.
    """
    refuse(arm, ladder)
    return REWRITINGS[arm](ladder, forwards, taken)


def refuse(arm: Arm, ladder: Ladder) -> None:
    """Refuse an arm that the ladder cannot have, or that would be another one under a second name.

    Raises:
        UserError: With the reason.
    """
    last, single = ladder.stages[-1], len(ladder.stages) == 1
    initialisation = last.student.initialisation
    if single and arm in ("staged", "staged-root", "ancestors", "direct-matched", "direct-free"):
        raise impossible(arm, f"direct, scratch, label-smoothing and pruned-only, as {ladder.name} has one stage", "It is direct already.")
    for same, choice in TAUGHT_BY.items():
        if arm == same and all(stage.teachers == (choice,) for stage in ladder.stages):
            raise impossible(arm, f"staged, as the ladder's stages have teachers {choice} already", "Leave it out.")
    if arm == "staged-root" and initialisation == "random":
        allowed = f"direct, as {last.name} starts from random weights: without its assistants' weights and teaching it is the same"
        raise impossible(arm, allowed, "Leave it out.")
    if arm == "ancestors" and (named := [stage.name for stage in ladder.stages if stage.objective.features]):
        raise impossible(arm, f"an arm with one teacher, for the features of {', '.join(named)}", "Leave it or objective.features out.")
    for route in ROUTE_ARMS:
        if arm == route and (why := refusal(route, ladder)):
            raise impossible(arm, why.partition("allowed: ")[2].rpartition(". ")[0], "Leave it out.")
    if arm == "auto":
        for route in ladder.routing.routes:
            if why := refusal(route, ladder):
                raise impossible(arm, f"an arm whose routing.routes are possible; {why}".rstrip("."), "Leave the route or the arm out.")
    _refuse_for_answers(arm, ladder)
    if arm == "pruned-only" and initialisation == "random":
        allowed = f"a last student that starts from its teacher (initialisation layers or prune); {last.name} starts from random weights"
        raise impossible(arm, allowed, "Leave it out.")


def _refuse_for_answers(arm: Arm, ladder: Ladder) -> None:
    """Refuse an arm in which answers would teach a student that they cannot teach."""
    if ladder.teacher.source != "answers" or arm not in (*FROM_ROOT, *TAUGHT_BY):
        return
    try:
        (direct(ladder) if arm in FROM_ROOT else taught_by(TAUGHT_BY[arm], ladder)).checked()
    except UserError as error:
        reason = str(error).partition(". ")[0]
        raise impossible(arm, f"an arm whose students answers can teach; as {arm}, {reason}", "Leave it out.") from None


def starts_from_root(arm: Arm, ladder: Ladder) -> bool:
    """Whether an arm has the last student alone, whose first weights, where they are a teacher's, are the root's."""
    if arm in ROUTE_ARMS:
        return not refusal(arm, ladder) and len(routed(arm, ladder).stages) == 1
    return arm in FROM_ROOT


def impossible(arm: Arm, allowed: str, remedy: str) -> UserError:
    """The error for an arm that the ladder cannot have."""
    return UserError.about("proof.arms", arm, allowed, remedy)


def taught_by(choice: Teachers, ladder: Ladder) -> Ladder:
    """The ladder whose students all have the same choice of teachers, single ones."""
    return with_stages(ladder, *(taught(stage, choice).model_copy(update={"members": 1}) for stage in ladder.stages))


def scratch(ladder: Ladder) -> Ladder:
    """The last student from random weights and labels alone."""
    last = ladder.stages[-1]
    student = last.student.model_copy(update={"initialisation": "random"})
    return with_stages(ladder, untaught(last).model_copy(update={"student": student}))


def _whole(ladder: Ladder, forwards: ForwardFlops, taken: Sequence[int] | None) -> float:
    return total_of(flops_of(ladder, (forwards.root, *forwards.students), forwards.examples, taken))


def _last_hop(ladder: Ladder, forwards: ForwardFlops, taken: Sequence[int] | None) -> float:
    return flops_of(ladder, (forwards.root, *forwards.students), forwards.examples, taken)[-1].total


def _direct_for(target: Callable[[Ladder, ForwardFlops, Sequence[int] | None], float]) -> Rewriting:
    return lambda ladder, forwards, taken: matched_single(
        direct(ladder), forwards.root, forwards.direct, forwards.examples, target(ladder, forwards, taken)
    )


def _scratch_matched(ladder: Ladder, forwards: ForwardFlops, taken: Sequence[int] | None) -> Ladder:
    target = _whole(ladder, forwards, taken)
    return matched_single(scratch(ladder), forwards.root, forwards.scratch, forwards.examples, target)


def _label_smoothing(ladder: Ladder, forwards: ForwardFlops, taken: Sequence[int] | None) -> Ladder:
    stage = _scratch_matched(ladder, forwards, taken).stages[0]
    smoothed = stage.objective.of_labels(ladder.proof.smoothing)
    return with_stages(ladder, stage.model_copy(update={"objective": smoothed}))


def _route_matched(route: RouteArm) -> Rewriting:
    """The route, with the operations of the whole ladder as it stands."""

    def rewrite(ladder: Ladder, forwards: ForwardFlops, taken: Sequence[int] | None) -> Ladder:
        def cost(made: Ladder) -> float:
            return total_of(arm_flops(route, made, forwards))

        target = _whole(ladder, forwards, taken)
        made = matched_whole(routed(route, ladder), cost, target)
        if made.stages[-1].training.steps == 1 and cost(made) > 1.1 * target:
            raise impossible(
                route, f"an arm of {target:.3g} FLOPs, as the ladder takes; one step of each stage takes more", "Leave it out."
            )
        return made

    return rewrite


REWRITINGS: dict[Arm, Rewriting] = {
    "staged": lambda ladder, *_: ladder,
    "staged-root": lambda ladder, *_: taught_by("root", ladder),
    "ancestors": lambda ladder, *_: taught_by("ancestors", ladder),
    "direct": lambda ladder, *_: direct(ladder),
    "direct-matched": _direct_for(_whole),
    "direct-free": _direct_for(_last_hop),
    "scratch": _scratch_matched,
    "label-smoothing": _label_smoothing,
    "pruned-only": lambda ladder, *_: with_stages(ladder, lasting(direct(ladder).stages[0], 0)),
    **{route: _route_matched(route) for route in ROUTE_ARMS},
    "auto": lambda ladder, *_: auto_arm(ladder, ladder),  # its stages are not known before its pilots have run
}
assert tuple(REWRITINGS) == ARMS
# These hang on the steps of `staged`.
MATCHED_TO_STEPS: tuple[Arm, ...] = ("direct-matched", "direct-free", "scratch", "label-smoothing", *ROUTE_ARMS)


def arm_flops(
    arm: Arm, ladder: Ladder, forwards: ForwardFlops, taken: Sequence[int] | None = None, chosen: Sequence[int | None] = ()
) -> list[StageFlops]:
    """Operations of each training of an arm, as if it were run alone.

    Args:
        arm: Which.
        ladder: As it was rewritten.
        forwards: Of its models.
        taken: Steps that each training took; None: those of its schedule.
        chosen: Place of the teacher that trials chose for each stage; none: not chosen yet.
    """
    if arm in ("staged", "staged-root", "ancestors", *ROUTE_ARMS) and (len(ladder.stages) > 1 or len(forwards.students) == 1):
        students = forwards.students + forwards.students[-1:] * (len(ladder.stages) - len(forwards.students))  # self: the last again
    else:
        students = (forwards.scratch if arm in ("scratch", "label-smoothing") else forwards.direct,)
    return flops_of(ladder, (forwards.root, *students), forwards.examples, taken, chosen)
