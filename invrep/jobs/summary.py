"""Summarise a job in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from invrep.data.batching import Key
from invrep.evaluation.certificate.columns import ordered
from invrep.evaluation.column_statistics import Summed


@dataclass(frozen=True)
class TableRow:
    """Summarise a photo, or one restart of a job's only photo.

    Attributes:
        name: encoded image id, or number of the restart.
        columns: statistics of columns of ``metrics.csv``, without pre-images that have a remark.
    """

    name: str
    columns: Mapping[str, Summed]


@dataclass
class Summary:
    """Summarise the results of a job.

    Attributes:
        count: number of pre-images.
        images: number of their photos.
        table: first rows of ``metrics.csv``.
        rows: first photos; of a job of one photo, its first restarts.
        passes_to_try: number of passes to try for pre-images whose error is still falling, their median; None without
            any. ``columns["still_falling"].mean`` is their share.
        columns: statistics of the columns of ``metrics.csv`` and ``spread.csv``, without rows that have a remark.
        remarked: photos by remark, as keys of a dictionary; their numbers say nothing about Φ.
        bare: number of pre-images with a remark.
        seen: URL or command to view the job in its logger; None without one.
        certified: number of pre-images with a certificate.
        late: sentence about a fault that left no photo undone, such as an absent rank; None without one.
    """

    count: int = 0
    images: int = 0
    table: list[dict[str, Any]] = field(default_factory=list)
    rows: list[TableRow] = field(default_factory=list)
    passes_to_try: int | None = None
    columns: dict[str, Summed] = field(default_factory=dict)
    remarked: dict[str, dict[str, None]] = field(default_factory=dict)
    bare: int = 0
    seen: str | None = None
    certified: int = 0
    late: str | None = None

    def take_certificates(self, rows: Mapping[Key, Mapping[str, Any]]) -> None:
        """Add the columns of certificates to the table and to the statistics; those of ``metrics.csv`` stay.

        Args:
            rows: rows of ``certificate.csv``, by image id and restart.
        """
        names = ordered({name for row in rows.values() for name, value in row.items() if isinstance(value, float)})
        names = [name for name in names if name not in self.columns]
        for row in self.table:
            certified = rows.get((row["image"], row["restart"]), {})
            row |= {name: certified[name] for name in names if name in certified}
        for name in names:
            column = Summed.of(pl.Series([row.get(name) for row in rows.values()], dtype=pl.Float64))
            self.columns |= {name: column} if column.count else {}
        self.certified = len(rows)

    @property
    def means(self) -> dict[str, float]:
        """Return the mean of each column that has a value."""
        return {name: column.mean for name, column in self.columns.items() if column.count}
