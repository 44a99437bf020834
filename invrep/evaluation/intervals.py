"""Estimate how far a mean over photos would move with other photos."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from scipy.special import stdtrit


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
