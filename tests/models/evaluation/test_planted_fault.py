"""The audit flags a fault that is planted in a teacher; real trainings."""

from pathlib import Path

import pytest

from benchmarks.planted import FAULTY, REMEDIES, Outcome, outcomes

pytestmark = pytest.mark.thorough

ALONE = (f"mark {FAULTY}",)


def test_a_planted_fault_is_flagged_in_its_slice_and_a_remedy_removes_the_flag(tmp_path: Path) -> None:
    found = outcomes(0, tmp_path, faults=("flipped",), remedies=("correct-only",), steps=80)
    assert found["flipped"].flagged == ALONE
    assert found["flipped, correct-only"].flagged == ()
    assert found["flipped, correct-only"].inherited < found["flipped"].inherited / 4


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_in_19_of_20_seeds(tmp_path: Path) -> None:
    runs: list[dict[str, Outcome]] = []
    for seed in range(20):
        (tmp_path / str(seed)).mkdir()
        runs.append(outcomes(seed, tmp_path / str(seed)))
    for fault in ("flipped", "biased"):
        assert sum(run[fault].flagged == ALONE for run in runs) >= 19
    assert sum(run["clean"].flagged == () for run in runs) >= 19
    for remedy in REMEDIES:
        assert all(run[f"flipped, {remedy}"].inherited < run["flipped"].inherited / 2 for run in runs)
