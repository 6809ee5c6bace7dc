"""Studies: they go on where they were stopped, are of one ladder, and hold their trials' rungs."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import load
from tasks.records.routes.search import RungScore, SearchedTrial
from tasks.search.plan import SearchPlan, plan_search
from tasks.search.study import Study, claimed, open_study

pytestmark = pytest.mark.thorough

RATES = "{choices: [0.5, 1], relative: true}"
SPACE = f"search.space={{objective: {{alpha: {{low: 0.1, high: 0.9}}, kind: [forward-kl, jsd]}}, training.learning_rate: {RATES}}}"


def plan(*overrides: str) -> SearchPlan:
    return plan_search(load("digits", (SPACE, *overrides)).ladder)


def score_of(study: Study, trial: object, rung: int) -> RungScore:
    """The further alpha lies from 0.6, the worse; longer schedules are better."""
    alpha = study.values(trial)["objective.alpha"]  # pyright: ignore[reportArgumentType]
    return RungScore(
        steps=10 * 3**rung, score=0.9 - abs(alpha - 0.6) + 0.01 * rung, seconds=2.0, training=2.0, fingerprints=(), reused=False
    )


def run(study: Study, count: int, stop_after: int | None = None) -> int:
    """Trials of a made-up landscape; ends in the middle of one after so many scores."""
    made, left = 0, study.abandoned()
    while sum(trial.state in ("complete", "pruned") for trial in study.records) < count:
        trial = left.pop(0) if left else study.ask()
        going = study.goes_on(trial)
        while going:
            if made == stop_after:
                return made
            made += 1
            going = study.report(trial, score_of(study, trial, len(study.rungs(trial))), 1000)
        if len(study.rungs(trial)) == len(study.plan.shares):
            study.finish(trial)
    return made


def told(trials: tuple[SearchedTrial, ...]) -> list[tuple[object, ...]]:
    return [(trial.number, trial.state, trial.values, len(trial.rungs)) for trial in trials]


@pytest.mark.parametrize("pruner", ["halving", "hyperband"])
def test_a_killed_study_goes_on_as_it_would_have(pruner: str, tmp_path: Path) -> None:
    here, there = Home(tmp_path / "a"), Home(tmp_path / "b")
    wanted = plan(f"search.pruner={pruner}")
    whole = open_study(wanted, here)
    scores = run(whole, 9)
    assert {trial.state for trial in whole.records} == {"complete", "pruned"}
    first = run(open_study(wanted, there), 9, stop_after=7)
    again = open_study(wanted, there)
    assert first + run(again, 9) == scores, "nothing is computed twice"
    assert told(again.records) == told(whole.records)
    assert again.records[0].values["objective.alpha"] == 0.7, "the first trial is the ladder itself"
    assert again.spent == 2.0 * scores
    shares = again.importance()
    assert next(iter(shares)) == "objective.alpha"
    assert sum(shares.values()) == pytest.approx(1)


def test_a_study_of_other_settings_is_refused_and_another_length_is_not(tmp_path: Path) -> None:
    home = Home(tmp_path)
    open_study(plan(), home)
    open_study(plan("search.trials=40", "search.seeds=2", "compute.at_once=2"), home)
    with pytest.raises(
        UserError, match=r"search.study: got 'digits'; allowed: a new name, or the settings that its trials were made with "
    ):
        open_study(plan("stages.eighth.training.warmup=0.2"), home)
    with pytest.raises(UserError, match=r"metric: accuracy -> nll"):
        open_study(plan("search.metric=nll"), home)
    assert open_study(plan("search.metric=nll", "search.study=other"), home).records == ()


def test_two_searches_of_one_study_at_once_are_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with claimed(home, plan()):
        with (
            pytest.raises(UserError, match=r"search.study: got 'digits'; allowed: a study in which no other search is at work"),
            claimed(home, plan()),
        ):
            pass
        with claimed(home, plan("search.study=other")):
            pass
    with claimed(home, plan()):
        pass


def test_two_objectives_give_a_front(tmp_path: Path) -> None:
    study = open_study(plan("search.against=parameters"), Home(tmp_path))
    for score, size in ((0.9, 300.0), (0.8, 200.0), (0.7, 250.0)):
        trial = study.ask()
        study.report(trial, RungScore(steps=1, score=score, seconds=1, training=1, fingerprints=(), reused=False), int(size))
        study.finish(trial, size)
    study.refuse(study.ask(), "too large")
    assert [trial.front for trial in study.records] == [True, True, False, False]
    assert (study.records[3].state, study.records[3].why) == ("refused", "too large")


def test_a_database_that_does_not_answer_is_named(tmp_path: Path) -> None:
    pytest.importorskip("psycopg2")
    with pytest.raises(UserError, match=r"search.storage: got 'postgresql://me@127.0.0.1:9/x'; allowed: a database that answers"):
        open_study(plan("search.storage=postgresql://me@127.0.0.1:9/x"), Home(tmp_path))
