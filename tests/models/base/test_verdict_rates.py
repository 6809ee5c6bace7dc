"""Small cases of `benchmarks/verdicts.py`, at bounds that a wrong interval breaks."""

import math

import pytest

from benchmarks.verdicts import DIFFERENCES, covered, false_verdicts, flagged, losses, missed, missed_at_some_look, shares, tables

pytestmark = pytest.mark.thorough


def most(expected: float, cases: int) -> float:
    """Three standard deviations above an expected share."""
    return expected + 3 * math.sqrt(expected * (1 - expected) / cases)


def test_following_the_advice_errs_in_five_per_cent() -> None:
    assert false_verdicts(3.0, 300) <= 0.05
    assert missed_at_some_look((5, 10), 600) <= most(0.05, 600)
    assert missed_at_some_look((5, 5, 9), 600, naive=True) > most(0.05, 600), "the bound would not see the fault that it is for"


def test_symmetric_differences_are_missed_in_four_per_cent_by_sign_flips() -> None:
    assert missed(DIFFERENCES["heavy tails (t, 3)"], 8, "sign-flip", 500) <= most(0.04, 500)
    assert missed(DIFFERENCES["lognormal"], 8, "t", 200) > missed(DIFFERENCES["lognormal"], 8, "bootstrap-t", 200)


def test_intervals_over_documents_hold_what_percentiles_do_not() -> None:
    for draw, least in ((shares, 0.90), (losses, 0.925)):
        assert covered(draw, 15, 400)[1] >= least
        plain, given = covered(draw, 10, 400)
        assert given >= plain + 0.02


def test_errors_copied_on_many_rows_of_a_slice_are_flagged_and_on_few_seldom() -> None:
    assert flagged(0.4, 20)[0] >= 0.6
    assert flagged(0.1, 20)[0] <= 0.4


def test_tables_are_printed() -> None:
    printed = list(tables(2))
    assert len(printed) == 5
    assert all(line.count("|") == table.splitlines()[0].count("|") for table in printed for line in table.splitlines())
