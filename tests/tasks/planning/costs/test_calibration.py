"""Calibrations of several processes are all remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.flows.driver import clean_environment, run_together

pytestmark = pytest.mark.processes

FIT = """
import sys
from pathlib import Path
from conf.home import Home
from conf.loading.load import load
from tasks.planning.budget import fit_budget
print(fit_budget(load("digits", sys.argv[2:]), "9d", Home(Path(sys.argv[1]))).words)
"""


def test_two_budgets_at_once_neither_fail_nor_lose_a_calibration(tmp_path: Path) -> None:
    """With other batch sizes each must measure; a file replaced by the last one would hold one entry."""
    overrides = ("stages.half.training.batch_size=8", "stages.half.training.batch_size=16", "stages.half.training.batch_size=8")
    ended = run_together(FIT, [(tmp_path, override) for override in overrides], [clean_environment()] * 3)
    assert [done.code for done in ended] == [0, 0, 0], [done.err for done in ended]
    assert all("the whole ladder fits" in done.out for done in ended)
    assert len(json.loads((tmp_path / "calibration.json").read_text())) == 2
    assert sum("measuring a few steps" in done.err for done in ended) <= 2
