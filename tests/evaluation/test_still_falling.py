"""Whether an error would fall with more passes, and how many passes to try."""

import math

import pytest

from invrep.evaluation.still_falling import falling, passes_to_try, still_falling


def power(exponent: float, passes: int = 300) -> list[tuple[int, float]]:
    return [(at, (1 + at) ** -exponent) for at in range(0, passes + 1, 5)]


def test_a_fall_of_the_last_tenth_is_told_from_none():
    assert still_falling(power(1)) and not still_falling(power(0.2))  # by 10 and 2 %
    level = [(at, 0.1 + math.exp(-at / 20)) for at in range(301)]
    assert not still_falling(level) and still_falling(level[:40])
    assert not still_falling([(0, 1.0)]) and not still_falling([(0, 1.0), (1, 1.0)])
    assert still_falling([(0, 1.0), (4, 0.5)])


def test_teeth_and_stages_are_no_fall():
    teeth = [(at, 0.1 * (1.5 if at % 8 == 0 else 1)) for at in range(300)]
    assert not still_falling([*teeth, (300, 0.098)])  # though after a tooth
    assert still_falling([*teeth, (300, 0.09)])
    stages = [(at, 0.5) for at in range(281)] + [(at, 0.1) for at in range(280, 301)]  # without the jitter it is lower
    assert not still_falling(stages) and still_falling([*stages[:-1], (300, 0.05)])
    assert not still_falling([*teeth, (300, math.nan)]) and still_falling([(260, math.nan), *teeth[265:], (300, 0.05)])


@pytest.mark.parametrize(("exponent", "passes"), [(2, 600), (0.7, 800), (0.2, 1200)])
def test_passes_to_try_would_halve_the_error_within_bounds(exponent, passes):
    assert passes_to_try(power(exponent)) == pytest.approx(passes, rel=0.02)


def test_columns_are_of_errors_alone():
    def points(name):
        return [(at, {name: value}) for at, value in power(1)]

    assert falling(points("error")) == {"still_falling": 1, "passes_to_try": 600}
    assert falling(points("activation")) == {} and falling([(0, {"error": math.nan})]) == {}
