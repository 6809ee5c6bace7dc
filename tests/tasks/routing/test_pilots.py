"""A search on a real ladder: its pilots are trained by the ordinary steps, and found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conf.home import Home
from conf.loading.load import load
from models.base.device import precision_of
from models.evaluation.paired import DocumentScores
from tasks.evaluation.evaluate import evaluate_model
from tasks.evaluation.paired_scores import stored_scores
from tasks.records.choice.route import PilotRecord, RouteDecision
from tasks.records.run import StageRecord
from tasks.routing.candidates import RouteCandidates, candidates_of
from tasks.routing.forecast import search_notes
from tasks.routing.pilots import Pilot, record_of_pilot
from tasks.routing.search import RouteSearch
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.student import train_student
from tests.factories import inputs_of
from tests.flows.ladders import TINY


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> StageInputs:
    folder = tmp_path_factory.mktemp("routing")
    (folder / "tiny.yaml").write_text(TINY)
    overrides = ("route=auto", "routing={share: 0.5, routes: [as-written, direct, root-cached], least_steps: 3}", "compute.at_once=null")
    return inputs_of(load(str(folder / "tiny.yaml"), overrides).ladder, folder)


@pytest.fixture(scope="module")
def candidates(inputs: StageInputs) -> RouteCandidates:
    return candidates_of(inputs.ladder, inputs.context, inputs.data.corpus())


def trained(pilot: Pilot, root: StageRecord, inputs: StageInputs) -> tuple[PilotRecord, StageRecord]:
    """A pilot as its flow makes it, without Prefect and MLflow."""
    own, lineage = replace(inputs, ladder=pilot.ladder), [root]
    for stage in pilot.ladder.stages:
        lineage.append(train_student(stage, lineage, own))
    last = evaluate_model(lineage[-1], lineage[:-1], own, precision_of(pilot.ladder, pilot.ladder.stages[-1].training))
    return record_of_pilot(pilot, [*lineage[1:-1], last]), last


def searched(inputs: StageInputs, candidates: RouteCandidates, root: StageRecord) -> tuple[RouteDecision, list[StageRecord]]:
    search, lasts = RouteSearch(inputs.ladder, candidates), list[StageRecord]()
    while not search.finished:
        made, scores = list[PilotRecord](), dict[str, DocumentScores]()
        for pilot in search.pilots():
            record, last = trained(pilot, root, inputs)
            made.append(search.count(record))
            lasts.append(last)
            where = last.name, Path(last.folder), last.weights_sha256
            scores[last.fingerprint] = stored_scores(*where, inputs.data, ("valid",), 200, inputs.ladder, inputs.context)
        search.judge(made, scores)
    return search.decide()[0], lasts


@pytest.mark.slow
def test_a_search_is_priced_before_and_found_again_after(inputs: StageInputs, candidates: RouteCandidates) -> None:
    root = prepare_teacher(inputs)
    decision, lasts = searched(inputs, candidates, root)
    again, found = searched(inputs, candidates, root)
    assert all(last.reused for last in found)
    computed = {pilot.route: pilot.flops for pilot in decision.rounds[0].pilots}
    assert {pilot.route: pilot.flops for pilot in again.rounds[0].pilots} == computed
    assert again.winner == decision.winner
    assert again.rounds[-1].standings == decision.rounds[-1].standings
    # What the record of the training counts is what the search has paid.
    direct = next(last for last in lasts if last.name == "three-direct-1")
    assert computed["direct"] == direct.flops
    best = decision.rounds[0].standings[0]
    assert best.score == max(pilot.score or 0 for pilot in decision.rounds[0].pilots)
    # The scores of documents, from which the noise comes, are those of the evaluation.
    for last in lasts:
        scores = stored_scores(
            last.name, Path(last.folder), last.weights_sha256, inputs.data, ("valid",), 200, inputs.ladder, inputs.context
        )
        assert scores.score.sum() / scores.weight.sum() == pytest.approx(last.metrics["accuracy"])


def test_a_plan_tells_the_pilots_and_the_bound_of_the_total(inputs: StageInputs) -> None:
    note, *left_out = search_notes(inputs.ladder, Path(inputs.context.base), Home(Path(inputs.context.home)))
    assert "at most" in note
    assert "(50.0 %)" in note
    assert "direct, root-cached, as-written" in note
    assert "the 9.14 GFLOP of the stages as written at most" in note
    assert any("not in routing.routes" in line for line in left_out)
    as_written = inputs.ladder.model_copy(update={"route": "as-written"})
    assert search_notes(as_written, Path(inputs.context.base), Home(Path(inputs.context.home))) == ()
