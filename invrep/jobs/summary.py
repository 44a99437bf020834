"""What a job has come to, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from invrep.evaluation.column_statistics import Summed


@dataclass
class Summary:
    """What a job has come to.

    Attributes:
        count: how many pre-images.
        images: of how many photos.
        table: the first rows of ``metrics.csv``.
        columns: of its numbers, and of those of ``spread.csv``, what is told; rows with a remark are left out.
        remarked: remark → the photos that bear it; their numbers say nothing about Φ.
        bare: how many pre-images bear one.
        seen: how to see the job in its logger; None without one.
        late: what went wrong although all is done; None for nothing.
    """

    count: int = 0
    images: int = 0
    table: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, Summed] = field(default_factory=dict)
    remarked: dict[str, dict[str, None]] = field(default_factory=dict)
    bare: int = 0
    seen: str | None = None
    late: str | None = None

    @property
    def means(self) -> dict[str, float]:
        """The means of the columns."""
        return {name: column.mean for name, column in self.columns.items() if column.count}
