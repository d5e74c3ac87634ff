"""Means, intervals and paired ratios, against scipy's own."""

import math

import numpy as np
import pytest
import scipy.stats

from benchmarks.study.statistics import geometric_mean, mean, paired_ratio

VALUES = [512.0, 430.0, 655.0, 470.0]


def test_mean_has_students_interval():
    found = mean(VALUES)
    expected = scipy.stats.t.interval(0.95, 3, np.mean(VALUES), scipy.stats.sem(VALUES))
    assert found.value == pytest.approx(np.mean(VALUES)) and found.count == 4
    assert (found.low, found.high) == pytest.approx(expected)


def test_paired_ratio_is_the_paired_test_on_logarithms():
    others = {0: 500.0, 1: 450.0, 2: 600.0, 3: 520.0}
    found = paired_ratio(dict(enumerate(VALUES)), others)
    test = scipy.stats.ttest_rel(np.log(VALUES), np.log(list(others.values())))
    interval = test.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(np.exp([interval.low, interval.high]))
    assert found.value == pytest.approx(scipy.stats.gmean(np.divide(VALUES, list(others.values()))))


def test_paired_ratio_takes_the_seeds_that_both_have():
    found = paired_ratio({0: 8.0, 1: 3.0, 7: 1.0}, {1: 1.0, 0: 2.0, 5: 1.0})
    assert found.count == 2 and found.value == pytest.approx(math.sqrt(4 * 3))
    assert paired_ratio({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize("estimate", [mean, geometric_mean])
def test_one_value_has_no_interval_and_none_no_mean(estimate):
    found = estimate([3.0])
    assert (found.low, found.high, found.count) == (None, None, 1)
    assert found.value == pytest.approx(3.0) and estimate([]) is None


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_geometric_mean_refuses_what_has_no_logarithm(bad):
    with pytest.raises(ValueError, match=f"positive values, got {bad}"):
        geometric_mean([2.0, bad])
