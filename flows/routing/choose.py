"""The loop of `route: auto`: rounds of pilots, each recorded, then the winner's ladder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from conf.schema.ladder import Ladder
from flows.routing.pilots import run_pilot
from models.evaluation.paired import DocumentScores
from tasks.evaluation.paired_scores import stored_scores
from tasks.lifecycle.ladder_run import LadderRun
from tasks.records.routes.decision import PilotRecord, RouteDecision
from tasks.records.run import StageRecord
from tasks.routing.candidates import candidates_of
from tasks.routing.record import log_plan, log_round, record_decision
from tasks.routing.search import RouteSearch, decided_ladder
from tasks.runtime.stage_inputs import StageInputs


def on_route(root: StageRecord, inputs: StageInputs, run: LadderRun) -> StageInputs:
    """The inputs with the ladder of the route that pilots choose; the same inputs where the route is not auto."""
    if inputs.ladder.route != "auto":
        return inputs
    ladder = chosen_ladder(root, inputs, run)
    run.plan(tuple(stage.name for stage in ladder.stages))
    return replace(inputs, ladder=ladder)


def chosen_ladder(root: StageRecord, inputs: StageInputs, run: LadderRun) -> Ladder:
    """The ladder of the route that pilots choose, or have chosen before the run was interrupted."""
    candidates = candidates_of(inputs.ladder, inputs.context, inputs.data.corpus())
    before = run.record.route
    if before is not None and before.winner is not None:
        record_decision(run.record, before, run.context)
        return with_gates(decided_ladder(candidates, before), inputs.ladder)
    search = RouteSearch(inputs.ladder, candidates, before)
    log_plan(search.decision, search.plan)
    while not search.finished:
        run.keep_route(_round(search, root, inputs))
        log_round(search.decision)
    decision, ladder = search.decide()
    run.keep_route(decision)
    record_decision(run.record, decision, run.context)
    return with_gates(ladder, inputs.ladder)


def _round(search: RouteSearch, root: StageRecord, inputs: StageInputs) -> RouteDecision:
    """Run the pilots of a round and judge it."""
    made, scores = list[PilotRecord](), dict[str, DocumentScores]()
    for pilot in search.pilots():
        result = run_pilot(pilot, root, inputs)
        made.append(search.count(result.record))
        if result.last is not None:
            last, own = result.last, pilot.ladder
            scores[last.fingerprint] = stored_scores(
                last.name, Path(last.folder), last.weights_sha256, inputs.data, ("valid",), own.evaluation.examples, own, inputs.context
            )
    return search.judge(made, scores)


def with_gates(ladder: Ladder, written: Ladder) -> Ladder:
    """A ladder whose stages have the gates that they were written with, which the comparison of routes leaves out."""
    gates = {stage.name: stage.gate for stage in written.stages}
    stages = (stage.model_copy(update={"gate": gates.get(stage.name, stage.gate)}) for stage in ladder.stages)
    return ladder.model_copy(update={"stages": tuple(stages)})
