"""First weights of a chosen route's students: those of its last pilot's.

So the winner's pilot is paid for and used, and only the losers' are spent. A student that is made from a parent which the final training
makes anew begins as its stage says: that parent is better than the pilot's was. So does one whose pilot took hardly a step.
"""

from __future__ import annotations

from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from models.base.quality import direction
from tasks.records.choice.route import RouteDecision
from tasks.records.run import StageRecord, stage_record
from tasks.runtime.runs.run_registry import Context, store_of
from tasks.store.cached import find_stored


def first_weights(ladder: Ladder, decision: RouteDecision) -> tuple[str, ...]:
    """Fingerprints of the pilot's students with whose weights the stages of the winner's ladder begin; "" where one begins as written."""
    last = decision.rounds[-1].pilots if decision.rounds else ()
    scored = [pilot for pilot in last if pilot.route == decision.winner and pilot.score is not None]
    if not scored or not ladder.routing.warm_start:
        return ()
    best = max(scored, key=lambda pilot: direction(decision.metric) * (pilot.score or 0.0))
    rungs = enumerate(zip(ladder.stages, best.fingerprints, best.steps, strict=True))
    least = ladder.routing.least_steps
    return tuple(fingerprint if steps >= least and _goes_on(stage, place) else "" for place, (stage, fingerprint, steps) in rungs)


def _goes_on(stage: Stage, place: int) -> bool:
    """Whether a pilot's student is the better beginning: nothing of it is that of a parent, and no other begins with it."""
    student = stage.student
    own = student.initialisation == "random" and student.vision == "own"
    return student.source == "new" and stage.members == 1 and (place == 0 or own)


def found(decision: RouteDecision, ladder: Ladder, context: Context) -> dict[str, StageRecord]:
    """The students whose weights are begun with, by the name of the stage; those that the store has no more are missing."""
    made = dict[str, StageRecord]()
    for stage, fingerprint in zip(ladder.stages, decision.first_weights, strict=bool(decision.first_weights)):
        if fingerprint and (result := find_stored(store_of(context), "stage", fingerprint, stage_record)) is not None:
            made[stage.name] = stage_record(result.folder).model_copy(update={"folder": str(result.folder)})
    return made
