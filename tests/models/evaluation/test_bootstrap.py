"""Bootstrap intervals: by hand, against scipy, and with dependent rows."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from models.evaluation.bootstrap import BootstrapEstimate, Limits, resample, rule_of_three

MANY = Limits(2, 2)


def mean_of(values: np.ndarray, document: np.ndarray | None = None, resamples: int = 4000, share: bool = False) -> BootstrapEstimate:
    document = np.arange(len(values)) if document is None else document
    columns = {"count": np.ones(len(values)), "value": values}
    return resample(columns, np.zeros(len(values), int), 1, document, resamples).ratio("value", "count", share=share)


def test_sums_by_hand() -> None:
    columns = {"count": np.ones(5), "value": np.array([1.0, 2.0, 3.0, 4.0, 0.0])}
    sums = resample(columns, np.array([0, 0, 1, 1, 1]), 3, np.array([7, 7, 7, 9, 9]), 50)
    assert sums.point.tolist() == [[2, 3], [3, 7], [0, 0]]
    assert sums.units.tolist() == [[1, 1], [2, 2], [0, 0]]
    # The documents 7 and 9 are drawn together twice: group 0 has 2 rows a time that 7 was drawn, group 1 one of 7 and two of 9.
    seven = sums.draws[:, 0, 0] / 2
    assert set(seven) == {0.0, 1.0, 2.0}
    assert (sums.draws[:, 1, 0] == seven + 2 * (2 - seven)).all()
    assert math.isnan(sums.ratio("value", "count", 2).value)
    assert sums.ratio("value", "count", 1).value == pytest.approx(7 / 3)


def test_the_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=200)
    ours = mean_of(values, resamples=10_000).figure(MANY)
    theirs = bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)


def test_rows_of_one_document_are_no_new_evidence() -> None:
    values = np.random.default_rng(0).normal(size=60)
    once, tenfold = mean_of(values).figure(MANY), mean_of(np.repeat(values, 10), np.repeat(np.arange(60), 10)).figure(MANY)
    assert tenfold[:3] == pytest.approx(once[:3])
    assert (tenfold.rows, tenfold.documents) == (600, 60)


@pytest.mark.parametrize("seed", range(3))
def test_intervals_cover_the_true_value_in_about_95_of_100_cases(seed: int) -> None:
    generator, inside = np.random.default_rng(seed), 0
    for _ in range(200):
        figure = mean_of(generator.binomial(1, 0.3, 150).astype(float), resamples=400, share=True).figure(MANY)
        assert figure.low is not None
        assert figure.high is not None
        inside += figure.low <= 0.3 <= figure.high
    assert 176 <= inside <= 199  # six standard deviations of 190 would be 171


def test_a_difference_is_paired() -> None:
    first = np.random.default_rng(0).normal(size=100)
    columns = {"count": np.ones(100), "a": first, "b": first - 0.5}
    sums = resample(columns, np.zeros(100, int), 1, np.arange(100), 300)
    figure = sums.ratio("a", "count").minus(sums.ratio("b", "count")).figure(MANY)
    assert figure[:3] == pytest.approx((0.5, 0.5, 0.5))


def test_none_seen_is_not_none_there() -> None:
    figure = mean_of(np.zeros(100), share=True).figure(MANY)
    assert figure.value == figure.low == 0
    assert figure.high == pytest.approx(1 - 0.025 ** (1 / 100), abs=1e-3)  # Clopper and Pearson's
    assert rule_of_three(2) == 1
    rows = resample({"count": np.ones(100), "a": np.zeros(100)}, np.zeros(100, int), 1, np.arange(100), 100)
    same = rows.ratio("a", "count", share=True).minus(rows.ratio("a", "count", share=True)).figure(MANY)
    assert same.value == 0
    assert (same.low, same.high) == pytest.approx((-rule_of_three(100), rule_of_three(100)))


@pytest.mark.parametrize(("limits", "few"), [(Limits(31, 2), True), (Limits(30, 2), False), (Limits(2, 4), True), (Limits(2, 3), False)])
def test_too_few_is_an_outcome(limits: Limits, few: bool) -> None:
    figure = mean_of(np.arange(30.0), np.arange(30) % 3).figure(limits)
    assert figure.few is few
    assert (figure.rows, figure.documents) == (30, 3)
    assert (figure.low is None) is (figure.high is None) is few


def test_no_rows_at_all_are_too_few() -> None:
    sums = resample({"count": np.ones(50), "never": np.zeros(50)}, np.zeros(50, int), 1, np.arange(50), 100)
    assert sums.ratio("count", "never").figure(Limits(0, 0)).few


def test_p_values_are_even_where_there_is_nothing() -> None:
    generator = np.random.default_rng(3)
    found = [mean_of(generator.normal(size=80), resamples=300).p_above(0.0) for _ in range(400)]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(np.array(found) < 0.5) == pytest.approx(0.5, abs=0.1)
    assert mean_of(np.zeros(40)).p_above(0.02) == 1
    assert mean_of(np.ones(40)).p_above(0.02) == 0
