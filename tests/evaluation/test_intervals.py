"""Intervals of means against SciPy's."""

import numpy as np
import pytest
from scipy import stats

from invrep.evaluation.intervals import bootstrap_interval, t_interval


def test_the_interval_is_scipys():
    values = np.random.default_rng(1).normal(3, 1, size=7)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values.tolist()) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_one_photo_has_none_and_an_error_is_not_negative():
    assert t_interval([1.0]) is None and t_interval([2.0, 2.0]) == (2, 2)
    low, high = t_interval([0.1, 0.9])
    assert low == 0 and high == pytest.approx(0.5 + 12.706 * 0.4, rel=1e-3)
    assert t_interval([-0.1, 0.9])[0] < 0


def test_a_bootstrap_interval_is_scipys_moved_outward_as_far_as_t_is_wider():
    values = np.random.default_rng(2).normal(3, 1, size=12)
    low, high = bootstrap_interval(values.tolist())
    theirs = stats.bootstrap((values,), np.mean, n_resamples=100_000, method="percentile", rng=np.random.default_rng(5))
    ends = stats.t.ppf(0.975, 11) / stats.norm.ppf(0.975) * np.sqrt(12 / 11)
    middle = values.mean()
    assert low == pytest.approx(middle + (theirs.confidence_interval.low - middle) * ends, abs=0.02)
    assert high == pytest.approx(middle + (theirs.confidence_interval.high - middle) * ends, abs=0.02)
    assert bootstrap_interval([1.0]) is None and bootstrap_interval([2.0, 2.0, 2.0]) == (2, 2)
    assert bootstrap_interval(values.tolist()) == (low, high)  # the same in each call


@pytest.mark.slow
@pytest.mark.parametrize(("count", "draw"), [(20, "normal"), (50, "normal"), (50, "exponential")])
def test_bootstrap_intervals_cover_the_mean_as_often_as_they_say(count, draw):
    generator = np.random.default_rng(0)
    samples = generator.normal(1, 1, (1000, count)) if draw == "normal" else generator.exponential(1, (1000, count))
    ends = [bootstrap_interval(sample.tolist()) for sample in samples]
    assert 0.93 <= np.mean([low <= 1 <= high for low, high in ends]) <= 0.97
