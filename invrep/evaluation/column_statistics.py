"""Compute the statistics of a column of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Summed:
    """Hold the statistics of a column's finite values.

    Attributes:
        count: number of values.
        total: sum of the values; 0 without any.
        mean: mean of the values; NaN without any.
        deviation: standard deviation, with n − 1; NaN below two values.
        least: smallest value; NaN without any.
        most: largest value; NaN without any.
    """

    count: int
    total: float
    mean: float
    deviation: float
    least: float
    most: float

    @classmethod
    def of(cls, column: pl.Series) -> Summed:
        """Return a column's statistics; missing values and NaN do not count."""
        values = column.cast(pl.Float64).fill_nan(None).drop_nulls()
        # polars annotates these as every type that a column might hold.
        told: list[Any] = [values.sum(), values.mean(), values.std(), values.min(), values.max()]
        return cls(len(values), *(math.nan if value is None else value for value in told))
