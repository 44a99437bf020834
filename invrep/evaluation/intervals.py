"""Estimate how far a mean over photos would move with other photos."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
from scipy import stats
from scipy.special import ndtr, stdtrit

RESAMPLES = 10_000


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean by Student's t, without its part below 0 if no value is below.

    Args:
        values: one finite number for each photo.

    Returns:
        Lower and upper end; None for fewer than two photos.
    """
    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    around = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / len(values) ** 0.5
    return (max(mean - around, 0.0) if min(values) >= 0 else mean - around), mean + around


def bootstrap_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float] | None:
    """Return the interval of a mean by 10 000 resamples of the photos.

    The ends are percentiles of the resamples' means. A bootstrap of n photos takes their variance for (n − 1)/n of what
    it is; the percentiles are moved outward for that, as far as Student's t is wider than the normal distribution
    (Hesterberg 2015, section 3.3). The resamples are the same ones in each call.

    Args:
        values: one finite number for each photo: a measure, restarts averaged, or a difference of two methods.
        level: probability that the interval covers the mean.

    Returns:
        Lower and upper end; None for fewer than two photos.
    """
    count = len(values)
    if count < 2:
        return None
    if min(values) == max(values):
        return values[0], values[0]
    tail = float(ndtr(stdtrit(count - 1, (1 - level) / 2) * math.sqrt(count / (count - 1))))
    found = stats.bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, 2**22 // count),
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
