"""The loop of `route: auto`: rounds of pilots, then the ladder of the winner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from prefect.artifacts import create_table_artifact

from conf.schema.ladder import Ladder
from flows.routing.pilots import run_pilot
from models.evaluation.paired import DocumentScores
from tasks.evaluation.paired_scores import stored_scores
from tasks.lifecycle.ladder_run import LadderRun
from tasks.records.choice.route import PilotRecord, RouteDecision
from tasks.records.run import StageRecord
from tasks.report.sections.choice.route import HEADERS, rows_of
from tasks.routing.candidates import candidates_of
from tasks.routing.record import log_plan, log_round, record_decision
from tasks.routing.search import RouteSearch, decided_ladder
from tasks.routing.warm_start import begun
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import AWAY
from tasks.runtime.stage_inputs import StageInputs


def on_route(root: StageRecord, inputs: StageInputs, run: LadderRun) -> StageInputs:
    """The inputs with the ladder of the route that pilots choose; the same inputs where the route is not auto.

    A run that is continued goes on from the decision in its record, and does not choose anew.
    """
    if inputs.ladder.route != "auto":
        return inputs
    decision, ladder = choose_route(root, inputs, run.record.route, run.keep_route)
    record_decision(run.record, decision, run.context)
    made = with_gates(ladder, inputs.ladder)
    run.plan(tuple(stage.name for stage in made.stages))
    return replace(inputs, ladder=made)


def choose_route(
    root: StageRecord,
    inputs: StageInputs,
    before: RouteDecision | None = None,
    keep: Callable[[RouteDecision], None] = lambda decision: None,
) -> tuple[RouteDecision, Ladder]:
    """The choice of the route by pilots, and the ladder of the winner with the rest of the price.

    Args:
        root: The root teacher.
        inputs: Of a ladder whose route is auto.
        before: The choice as far as an interrupted run had come; None: a new one.
        keep: Called after each round, and at the end.
    """
    candidates = candidates_of(inputs.ladder, inputs.context, inputs.data.corpus())
    if before is not None and before.winner is not None:
        return before, begun(decided_ladder(candidates, before), before, inputs.context)
    search = RouteSearch(inputs.ladder, candidates, before)
    log_plan(search.decision, search.plan)
    while not search.finished:
        keep(_round(search, root, inputs))
        log_round(search.decision)
        _show(search.decision)
    decision, ladder = search.decide()
    keep(decision)
    return decision, begun(ladder, decision, inputs.context)


def _show(decision: RouteDecision) -> None:
    """Leave the table of the last round in Prefect, with the flow run."""
    done = decision.rounds[-1]
    cells = [dict(zip(HEADERS, row, strict=True)) for row in rows_of(done, decision)]
    try:
        create_table_artifact(table=cells, key="ladder-route", description=f"routes: round {done.number}")
    except AWAY as error:
        log.warning("Prefect's server did not take the table of routes: %s", error or type(error).__name__)


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
