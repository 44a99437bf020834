"""Intervals of means against SciPy's."""

import numpy as np
import pytest
from scipy import stats

from invrep.evaluation.intervals import t_interval


def test_the_interval_is_scipys():
    values = np.random.default_rng(1).normal(3, 1, size=7)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values.tolist()) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_one_photo_has_none_and_an_error_is_not_negative():
    assert t_interval([1.0]) is None and t_interval([2.0, 2.0]) == (2, 2)
    low, high = t_interval([0.1, 0.9])
    assert low == 0 and high == pytest.approx(0.5 + 12.706 * 0.4, rel=1e-3)
    assert t_interval([-0.1, 0.9])[0] < 0
