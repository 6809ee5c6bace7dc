"""A budget that is too short for one trial and its confirmation is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import load
from tasks.search.plan import plan_search
from tasks.search.time import require_time

SPACE = "search.space={training: {learning_rate: [0.003, 0.02]}}"
SMALL = ("teacher.training.steps=3", "defaults.training.steps=20", "stages.eighth.training.steps=20", "compute.at_once=null")


def plan_with(budget: str, steps: int):
    return plan_search(load("digits", (SPACE, *SMALL, f"search.budget={budget}", f"stages.eighth.training.steps={steps}")).ladder)


def test_a_budget_too_short_for_one_trial_is_refused_with_the_least(tmp_path: Path) -> None:
    home = Home(tmp_path)
    require_time(plan_with("10d", 20), tmp_path, home)
    with pytest.raises(
        UserError, match=r"search.budget: got '1s'; allowed: at least \d+s on this machine, for the defaults, one trial"
    ) as one:
        require_time(plan_with("1s", 4_000), tmp_path, home)
    assert "Give more time, or fewer search.seeds." in str(one.value)
    assert not list((tmp_path / "store" / "stage").glob("*")), "nothing was trained"
