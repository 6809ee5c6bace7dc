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
from tasks.routing.record import log_plan, log_round, record_decision
from tasks.routing.search import RouteSearch, decided_ladder, routes_to_search
from tasks.routing.warm_start import found
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import AWAY
from tasks.runtime.stage_inputs import StageInputs


def on_route(root: StageRecord, inputs: StageInputs, run: LadderRun) -> StageInputs:
    """The inputs with the ladder of the route that pilots choose; the same inputs where the route is not auto.

    A run that is continued goes on from the decision in its record, and does not choose anew.
    """
    if inputs.ladder.route != "auto":
        return inputs
    decision, chosen = choose_route(root, inputs, run.record.route, run.keep_route)
    record_decision(run.record, decision, run.context)
    made = with_gates(chosen.ladder, inputs.ladder)
    run.plan(tuple(stage.name for stage in made.stages))
    return replace(chosen, ladder=made)


def choose_route(
    root: StageRecord,
    inputs: StageInputs,
    before: RouteDecision | None = None,
    keep: Callable[[RouteDecision], None] = lambda decision: None,
) -> tuple[RouteDecision, StageInputs]:
    """The choice of the route by pilots, and the inputs with the winner's ladder, which has the rest of the price, and its first weights.

    Args:
        root: The root teacher.
        inputs: Of a ladder whose route is auto.
        before: The choice as far as an interrupted run had come; None: a new one.
        keep: Called after each round, and at the end.
    """
    ladder, context, corpus = inputs.ladder, inputs.context, inputs.data.corpus()
    candidates = routes_to_search(ladder, context, corpus, before)
    if before is not None and before.winner is not None:
        return _with_first_weights(before, replace(inputs, ladder=decided_ladder(candidates, before)), keep)
    search = RouteSearch(ladder, candidates, before)
    log_plan(search.decision, search.plan)
    while not search.finished:
        keep(_round(search, root, inputs))
        log_round(search.decision)
        _show(search.decision)
    decision, chosen = search.decide()
    keep(decision)
    return _with_first_weights(decision, replace(inputs, ladder=chosen), keep)


def _with_first_weights(
    decision: RouteDecision, inputs: StageInputs, keep: Callable[[RouteDecision], None]
) -> tuple[RouteDecision, StageInputs]:
    """Find the students that the winner's begin with; one that was deleted since the decision is taken out of it."""
    made = found(decision, inputs.ladder, inputs.context)
    pairs = zip(inputs.ladder.stages, decision.first_weights, strict=bool(decision.first_weights))
    left = tuple(fingerprint if stage.name in made else "" for stage, fingerprint in pairs)
    if left != decision.first_weights:
        log.warning("route: a student of the pilot is not in the store any more: its stage begins as the ladder says")
        decision = decision.model_copy(update={"first_weights": left})
        keep(decision)
    return decision, replace(inputs, first_weights=made)


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
