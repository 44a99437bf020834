"""Two methods on the same photos, against SciPy's tests."""

import numpy as np
import pytest
from scipy import stats

from invrep.errors import InvrepError
from invrep.evaluation.paired import compare_paired, photo_means


def test_restarts_are_averaged_first_and_what_is_not_finite_is_left_out():
    rows = [{"image": "a", "x": 1.0}, {"image": "a", "x": 4.0}, {"image": "b", "x": float("nan")}]
    assert photo_means([*rows, {"image": "c", "x": float("inf")}, {"image": "d"}], "x") == {"a": 2.5}


def test_the_difference_is_paired_by_photo():
    generator = np.random.default_rng(0)
    base = generator.normal(0, 5, 30)  # photos differ far more than the methods do
    first = {str(k): value for k, value in enumerate(base)}
    second = {str(k): value for k, value in enumerate(base + generator.normal(0.5, 0.5, 30))} | {"more": 9.0}
    found = compare_paired(first, second)
    values = np.array([first[str(k)] - second[str(k)] for k in range(30)])
    assert (found.n, found.lower, found.higher) == (30, (values < 0).sum(), (values > 0).sum())
    assert found.difference == pytest.approx(values.mean()) and found.interval[0] < found.difference < found.interval[1]
    assert found.interval[1] < 0 and found.p < 0.001
    sign = compare_paired(first, second, test="sign")
    assert sign.p == pytest.approx(stats.binomtest(int(found.lower), 30).pvalue) and sign.difference == found.difference
    few = compare_paired(dict(zip("abcd", (1, 2, 3, 4), strict=True)), dict.fromkeys("abcd", 0.0))
    assert few.p == pytest.approx(2 / 16)  # of all ways to exchange four pairs, two are as extreme
    same = compare_paired(first, first)
    assert (same.p, same.difference, same.interval) == (1.0, 0.0, (0.0, 0.0))
    assert compare_paired(first, first, test="sign").p == 1


def test_wrong_arguments_are_a_sentence():
    with pytest.raises(InvrepError, match="no photo in common"):
        compare_paired({"a": 1.0}, {"b": 1.0})
    with pytest.raises(InvrepError, match="test=t is not valid"):
        compare_paired({"a": 1.0}, {"a": 1.0}, test="t")
