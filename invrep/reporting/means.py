"""Average a column over photos, with its interval, as numbers and as text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from invrep.evaluation.certificate.columns import heading, worded
from invrep.evaluation.intervals import bootstrap_interval


@dataclass(frozen=True)
class Mean:
    """Hold a column's mean over photos.

    Attributes:
        name: name of the column.
        mean: mean over photos, restarts averaged first; NaN without a photo.
        interval: 95 % bootstrap interval; None for one photo or none.
        n: number of photos with a value.
    """

    name: str
    mean: float
    interval: tuple[float, float] | None
    n: int

    @property
    def heading(self) -> str:
        """Return the column's heading."""
        return heading(self.name)

    @property
    def text(self) -> str:
        """Return the mean with its interval as text; empty without a photo."""
        if math.isnan(self.mean):
            return ""
        around = "" if self.interval is None else f" [{', '.join(worded(self.name, end) for end in self.interval)}]"
        return f"{worded(self.name, self.mean)}{around}"


def mean_of(name: str, values: Sequence[float]) -> Mean:
    """Return the mean of a column's values, one for each photo."""
    mean = statistics.fmean(values) if values else math.nan
    return Mean(name, mean, bootstrap_interval(values), len(values))
