"""The choice of a route in a run's record, its report, its costs, a proof, and what cleaning keeps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conf.home import Home
from conf.loading.load import load
from tasks.lifecycle.clean import clean
from tasks.planning.matching import direct
from tasks.proof.arms import ForwardFlops
from tasks.proof.proof import choices_of, replicate_of
from tasks.records.choice.route import PilotRecord, RouteDecision, RouteRound
from tasks.records.run import RunRecord
from tasks.report.sections.choice import route as page
from tasks.report.sections.costs import costs
from tasks.routing.halving import standings_of
from tasks.routing.pilots import with_steps
from tasks.training.costs.cost_model import Forward
from tasks.training.costs.examples import TrainingExamples
from tests.factories import model_record, run_record
from tests.tasks.homes import AGE, NEW, model, names, ran

LISTED = {"direct": 1e9, "as-written": 2e9}


def decided(*fingerprints: str) -> RouteDecision:
    """Two pilots of 1 and 2 GFLOP, of which the first was found in the store and won."""
    scores = {"direct": 0.81, "as-written": 0.8}
    pilots = tuple(
        PilotRecord(
            route=route,
            number=1,
            seed=0,
            steps=(10, 20) if place else (30,),
            score=score,
            flops=1e9 * (place + 1),
            seconds=2.0,
            fingerprints=fingerprints or ("p",) * (place + 1),
            reused=1 - place,
        )
        for place, (route, score) in enumerate(scores.items())
    )
    standings = standings_of({route: [score] for route, score in scores.items()}, lambda *_: 0.002, LISTED, 1, "accuracy")
    return RouteDecision(
        metric="accuracy",
        price=3e10,
        share=0.1,
        listed=LISTED,
        left_out={"self": "costs too much"},
        rounds=(RouteRound(number=1, price=2e9, pilots=pilots, standings=standings),),
        winner="direct",
        reason="round 1: the best score",
        spent=3e9,
        steps=(270,),
        final=2.7e10,
    )


def record() -> RunRecord:
    last = model_record("last", flops=2.7e10, steps=270, seconds=20.0, tokens=100)
    return run_record("r-1", model_record("teacher", flops=5e9, steps=40), last, route=decided())


def test_the_record_is_read_again_and_one_of_an_earlier_version_has_no_choice() -> None:
    assert RunRecord.model_validate_json(record().model_dump_json()) == record()
    assert run_record().route is None
    assert page.section(run_record()) is None


def test_the_report_says_who_was_dropped_and_why() -> None:
    section = page.section(record())
    assert section is not None
    assert section["sentence"].startswith(
        "direct: round 1: the best score. Pilots took 10.0 % and the final training 90.0 % of the 30 GFLOP"
    )
    first, second = section["tables"]
    assert [row[0] for row in first["rows"]] == ["direct", "as-written"]
    assert first["rows"][0][-1] == "chosen: the best score"
    assert first["rows"][1][1:5] == ["10, 20", "80.00 %", "1.00 %", "0.20 %"]
    assert first["rows"][1][-1] == "dropped: 1.00 % behind direct, beyond the noise of 0.20 %"
    assert second["rows"] == [["self", "costs too much"]]


def test_the_costs_of_a_run_hold_its_pilots_and_reused_ones_apart() -> None:
    lines = {line["model"]: line for line in costs(record())}
    pilots = [lines["pilots"][key] for key in ("steps", "tokens", "FLOPs", "time", "origin")]
    assert pilots == ["60", "-", "3 GFLOP", "4.0 s", "of 2 pilots, 1 reused"]
    assert (lines["Sum computed in this run"]["FLOPs"], lines["Sum reused"]["FLOPs"]) == ("34 GFLOP", "1 GFLOP")
    assert record().computed_flops == pytest.approx(3.4e10)


def test_an_arm_of_a_proof_pays_for_its_pilots() -> None:
    """Of the answers that its final training needs it has computed two thirds itself; the others are in the seconds of the pilots."""
    ladder = direct(load("digits", ("defaults.signals={source: cached, kind: full}",)).ladder)
    ladder = with_steps(ladder, (30,))
    last = model_record("last", steps=30, seconds=20.0, signal_seconds=0.0, all_signal_seconds=9.0, metrics={"accuracy": 0.9})
    forward, examples = Forward(1000, 1000), TrainingExamples(10**6)
    forwards = ForwardFlops(root=forward, students=(forward,) * 3, direct=forward, scratch=forward, examples=examples)
    student, answers = 3000 * 30 * ladder.stages[0].training.batch_size, 1000 * 30 * ladder.stages[0].training.batch_size
    decision = decided().model_copy(update={"final": student + answers * 2 / 3})
    made = replicate_of("auto", ladder, [last], last, forwards, decision)
    assert made.flops == 3e9 + decision.final
    assert made.seconds == pytest.approx(2 * 2 + 20 + 6)
    assert choices_of({"auto": [made, made], "staged": [made.model_copy(update={"route": None})]}) == [
        "auto: pilots took 10.0 % at most and chose direct 2 times"
    ]


def test_cleaning_keeps_the_pilots_of_a_kept_run(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    root = model(home, "root", "old")
    pilot, other = model(home, "pilot", "old", root), model(home, "other", "old", root, seed=1)
    ran(home, "old", [root, other])
    kept = ran(home, "young", [root], moment=NEW)
    path = home.runs / "young" / "record.json"
    path.write_text(kept.model_copy(update={"route": decided(pilot.fingerprint)}).model_dump_json())
    os.utime(path, (NEW, NEW))
    freed = names(clean(home, AGE))
    assert "stage/other" in freed
    assert not {"stage/pilot", "teacher/root"} & freed
