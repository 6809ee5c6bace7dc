"""A pilot as a flow of its own, through the ordinary steps."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import replace
from typing import NamedTuple

from prefect import flow, tags
from prefect.client.schemas.objects import State
from prefect.states import Completed

from conf.errors import TrainingDiverged
from flows.adapter.run_labels import untagged
from flows.adapter.steps import cancellable, evaluate_model, record_model, result_of, train_student
from models.base.device import precision_of
from tasks.records.choice.route import PilotRecord
from tasks.records.run import StageRecord
from tasks.routing.pilots import Pilot, failed_pilot, record_of_pilot
from tasks.runtime import cancellation
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import require_server
from tasks.runtime.stage_inputs import StageInputs
from tasks.training.members import with_members


class PilotResult(NamedTuple):
    """A finished pilot and its last student; None: a training diverged."""

    record: PilotRecord
    last: StageRecord | None


class _PilotWork(NamedTuple):
    """Inputs of the flow of a pilot, given past Prefect, which would store them with every run."""

    pilot: Pilot
    root: StageRecord
    inputs: StageInputs


_work: ContextVar[_PilotWork] = ContextVar("work of the pilot")


@flow(name="pilot", flow_run_name="pilot of {route}, round {number}", validate_parameters=False, persist_result=False)
@cancellable
def _pilot_flow(route: str, number: int, seed: int, steps: list[int]) -> PilotResult | State[PilotResult]:
    """Make a pilot.

    Args:
        route: Its route.
        number: Of its round.
        seed: Of its last student.
        steps: Of its trainings.
    """
    work = _work.get()
    with untagged():
        result = _made(work.pilot, work.root, work.inputs)
    require_server()
    if result.record.reused == len(steps):
        return Completed(name="Cached", message="all of its trainings were found in the store", data=result)
    return result


def run_pilot(pilot: Pilot, root: StageRecord, inputs: StageInputs) -> PilotResult:
    """Train a pilot's students from the root, and judge the last one on the validation split.

    What was computed before is found in the store. MLflow gets the last student as a child of the run, with tags of the pilot.
    """
    steps = [stage.training.steps for stage in pilot.ladder.stages]
    seed = pilot.ladder.stage_seed(pilot.ladder.stages[-1])
    token = _work.set(_PilotWork(pilot, root, inputs))
    try:
        with cancellation.engine_code(), tags("pilot", f"route:{pilot.route}", f"round:{pilot.number}"):
            state = _pilot_flow(pilot.route, pilot.number, seed, steps, return_state=True)
    finally:
        _work.reset(token)
    result = result_of(state)
    assert isinstance(result, PilotResult)
    return result


def _made(pilot: Pilot, root: StageRecord, inputs: StageInputs) -> PilotResult:
    context = inputs.context
    told = {"ladder.pilot": pilot.route, "ladder.pilot_round": str(pilot.number)}
    quiet = replace(inputs, ladder=pilot.ladder, context=context.model_copy(update={"mlflow_run_id": None}))
    own = replace(quiet, context=context.model_copy(update={"tags": {**context.tags, **told}}))
    lineage, last = [root], pilot.ladder.stages[-1]
    try:
        for stage in pilot.ladder.stages:
            into = own if stage is last else quiet
            members = [train_student(stage, lineage, into, None, member) for member in range(1, stage.members)]
            lineage.append(with_members(train_student(stage, lineage, into), members))
    except TrainingDiverged as error:
        log.warning("pilot of %s: %s", pilot.route, error)
        return PilotResult(failed_pilot(pilot, error), None)
    judged = evaluate_model(lineage[-1], lineage[:-1], own, precision_of(pilot.ladder, last.training))
    recorded = record_model(judged, lineage[:-1], own)
    return PilotResult(record_of_pilot(pilot, [*lineage[1:-1], recorded]), recorded)
