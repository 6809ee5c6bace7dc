"""The students of a proof's arms, trained on a cluster before they are compared."""

from __future__ import annotations

from collections.abc import Callable

from conf.schema.ladder import Ladder
from conf.schema.measures.proof import Arm
from flows.searching.rounds import train_trials
from tasks.proof.prepare_arms import Arms
from tasks.records.run import StageRecord
from tasks.runtime.cluster.client import cluster_address
from tasks.runtime.logs import log
from tasks.runtime.stage_inputs import StageInputs
from tasks.search.cluster import workers_of
from tasks.search.trial import job_of

Replicated = Callable[[Arm, int, list[int] | None], Ladder]  # of an arm, the number of a seed, and the steps that staged took


def train_ahead(arms: Arms, replicated: Replicated, root: StageRecord, inputs: StageInputs) -> None:
    """Train what the comparison will then find in the store, as many students at once as the cluster has places; nothing without one.

    Arms that take their steps from `staged` are trained after it. Left to the comparison are: a training that fails, for which it gives
    the reason, whatever a gate asks for beyond a first training, an arm whose route is found by pilots, and one with members.

    Args:
        arms: Of the proof.
        replicated: The ladder of an arm and a seed.
        root: The root teacher.
        inputs: Of all stages.
    """
    if not cluster_address():
        return
    with workers_of(inputs.ladder.compute.at_once) as workers:
        taken: dict[int, list[int] | None] = dict.fromkeys(range(inputs.ladder.proof.seeds))
        for some in _in_turn(arms):
            chosen = [(arm, number, replicated(arm, number, taken[number])) for number in taken for arm in some]
            chosen = [each for each in chosen if each[-1].route != "auto" and all(stage.members == 1 for stage in each[-1].stages)]
            if not chosen:
                continue
            log.info("proof: %d ladders of %s on %d places of the cluster", len(chosen), ", ".join(some), workers.count)
            jobs = [job_of(ladder, [stage.name for stage in ladder.stages], [root], inputs, split=None) for *_, ladder in chosen]
            outcomes = train_trials(f"students of {', '.join(some)}", jobs, workers)
            for (arm, number, _), outcome in zip(chosen, outcomes, strict=True):
                if arm == "staged" and outcome.students:
                    taken[number] = [student.steps for student in outcome.students]


def _in_turn(arms: Arms) -> list[list[Arm]]:
    first: list[Arm] = [arm for arm in arms.ladders if arm == "staged"]
    rest: list[Arm] = [arm for arm in arms.ladders if arm != "staged"]
    return [some for some in (first, rest) if some]
