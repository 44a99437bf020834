"""What is told of a column of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Summed:
    """What is told of a column: of its finite values the mean, the sum and the rest; NaN where there are none.

    Attributes:
        deviation: with n − 1; NaN below two values.
    """

    count: int
    total: float
    mean: float
    deviation: float
    least: float
    most: float

    @classmethod
    def of(cls, column: pl.Series) -> Summed:
        """Sum a column up."""
        values = column.cast(pl.Float64).fill_nan(None).drop_nulls()
        # polars' annotation has all that a column might hold
        told: list[Any] = [values.sum(), values.mean(), values.std(), values.min(), values.max()]
        return cls(len(values), *(math.nan if value is None else value for value in told))
