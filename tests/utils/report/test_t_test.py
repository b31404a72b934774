"""Student's t-test against values worked by hand and against scipy's."""

import pytest
import scipy.stats

from utils.report.t_test import TTest, t_test


def test_paired_by_hand():
    """Differences 1, 2 and 6: mean 3, deviation sqrt((4 + 1 + 9) / 2) = sqrt(7), error sqrt(7 / 3) = 1.53."""
    ours, theirs = {"a": 11.0, "b": 22.0, "c": 36.0}, {"c": 30.0, "a": 10.0, "b": 20.0, "alone": 99.0}
    found, other = t_test(ours, theirs), t_test(theirs, ours)
    assert found == TTest(pytest.approx(3 / (7 / 3) ** 0.5), 2)
    assert other == TTest(pytest.approx(-3 / (7 / 3) ** 0.5), 2)
    assert not found.is_significant  # 2.0 standard errors of the 4.3 that three seeds need


def test_unpaired_by_hand():
    """No seed in common: 2 ± sqrt(2) of two and 7 ± 1 of three. Variances of the means 1 and 1/3, freedom
    (4/3)^2 / (1 / 1 + (1/9) / 2) = 1.684.
    """
    first, second = {0: 1.0, 1: 3.0}, {5: 6.0, 6: 7.0, 7: 8.0}
    found = t_test(first, second)
    assert found == TTest(pytest.approx(-5 / (4 / 3) ** 0.5), pytest.approx(16 / 9 / (19 / 18)))
    expected = scipy.stats.ttest_ind(list(first.values()), list(second.values()), equal_var=False)
    assert (found.t, found.freedom) == pytest.approx((expected.statistic, expected.df))


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (5, 2.571)])
def test_quantiles_of_the_tables(freedom, quantile):
    """Two-sided 5 %, as printed in tables of Student's distribution."""
    assert TTest(quantile + 0.002, freedom).is_significant and TTest(-quantile - 0.002, freedom).is_significant
    assert not TTest(quantile - 0.002, freedom).is_significant
    assert scipy.stats.t.ppf(0.975, freedom) == pytest.approx(quantile, abs=6e-4)


def test_the_star_agrees_with_the_p_value_of_scipy():
    for theirs in ((0.10, 0.21, 0.30), (0.12, 0.20, 0.29), (0.02, 0.11, 0.22)):
        ours = (0.13, 0.24, 0.34)
        found = t_test(dict(enumerate(ours)), dict(enumerate(theirs)))
        assert found.is_significant == (scipy.stats.ttest_rel(ours, theirs).pvalue < 0.05)


def test_no_test_of_one_difference_or_of_equal_ones():
    assert t_test({0: 0.5}, {0: 0.4}) is None
    assert t_test({0: 0.5, 1: 0.6}, {0: 0.4}) is None
    assert t_test({0: 0.3, 1: 0.5}, {0: 0.1, 1: 0.3}) is None  # the differences vary by rounding only
    assert t_test({0: 0.5, 1: 0.5}, {2: 0.4, 3: 0.4}) is None
