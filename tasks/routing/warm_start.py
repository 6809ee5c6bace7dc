"""First weights of a chosen route's students: those of its last pilot's.

So the winner's pilot is paid for and used, and only the losers' are spent. A student that is made from a parent which the final training
makes anew begins as its stage says: that parent is better than the pilot's was.
"""

from __future__ import annotations

from pathlib import Path

from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from conf.schema.stage.student import Student
from tasks.planning.matching import with_stages
from tasks.records.choice.route import RouteDecision
from tasks.records.run import stage_record
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import Context, store_of
from tasks.store.cached import find_stored


def first_weights(ladder: Ladder, decision: RouteDecision) -> tuple[str, ...]:
    """Fingerprints of the pilot's students with whose weights the stages of the winner's ladder begin; "" where one begins as written."""
    last = decision.rounds[-1].pilots if decision.rounds else ()
    scored = [pilot for pilot in last if pilot.route == decision.winner and pilot.score is not None]
    if not scored or not ladder.routing.warm_start:
        return ()
    sign = -1.0 if decision.metric == "bits_per_byte" else 1.0
    best = max(scored, key=lambda pilot: sign * (pilot.score or 0.0))
    pairs = zip(ladder.stages, best.fingerprints, strict=True)
    return tuple(fingerprint if _goes_on(stage, place) else "" for place, (stage, fingerprint) in enumerate(pairs))


def _goes_on(stage: Stage, place: int) -> bool:
    """Whether a pilot's student is the better beginning, and one that the settings of a student can name."""
    student = stage.student
    own = student.source == "new" and student.vocabulary == "teacher" and student.vision != "kept" and stage.members == 1
    return own and (place == 0 or student.initialisation == "random")


def begun(ladder: Ladder, decision: RouteDecision, context: Context) -> Ladder:
    """The winner's ladder, whose stages begin with the recorded weights; as written where the store has a student no more."""
    if not any(decision.first_weights):
        return ladder
    stages = []
    for stage, fingerprint in zip(ladder.stages, decision.first_weights, strict=True):
        found = find_stored(store_of(context), "stage", fingerprint, stage_record) if fingerprint else None
        if fingerprint and found is None:
            log.warning("%s: its pilot's student is not in the store any more, so it begins as the ladder says", stage.name)
        stages.append(stage if found is None else stage.model_copy(update={"student": _from(found.folder, stage.student)}))
    return with_stages(ladder, *stages)


def _from(folder: Path, student: Student) -> Student:
    return Student(source="checkpoint", path=str(folder.absolute()), sha256=stage_record(folder).weights_sha256, vision=student.vision)
