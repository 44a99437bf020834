"""Average certificates over photos, with intervals, and write them as a LaTeX table."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from invrep.evaluation.certificate.columns import heading, ordered, worded
from invrep.evaluation.intervals import bootstrap_interval
from invrep.evaluation.paired import photo_means
from invrep.reporting.layouts.latex import tabular
from invrep.results.store import Results

NOTE = "Means over photos, restarts averaged first, with 95 % bootstrap intervals (10 000 resamples of the photos)."
APART = ("image", "restart", "content", "settings", "remark")  # columns that are no measure


@dataclass(frozen=True)
class Mean:
    """Hold a column's mean over photos.

    Attributes:
        name: name of the column.
        mean: mean over photos, restarts averaged first.
        interval: 95 % bootstrap interval; None for one photo.
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
        """Return the mean with its interval, as text."""
        around = "" if self.interval is None else f" [{', '.join(worded(self.name, end) for end in self.interval)}]"
        return f"{worded(self.name, self.mean)}{around}"


def certificate_means(rows: Collection[Mapping[str, Any]]) -> list[Mean]:
    """Return the mean of each column of certificates that has a finite value, in the order of ``certificate.csv``.

    Args:
        rows: rows of ``certificate.csv``.
    """
    found = []
    for name in ordered(name for name in dict.fromkeys(name for row in rows for name in row) if name not in APART):
        values = list(photo_means(rows, name).values())
        if values:
            found.append(Mean(name, statistics.fmean(values), bootstrap_interval(values), len(values)))
    return found


def write_latex(results: Results) -> None:
    """Write ``certificate.tex``: the means of a job's certificates, as a table of LaTeX; nothing without certificates.

    Args:
        results: folder of the job.

    Raises:
        InvrepError: the table of certificates is damaged, or the file cannot be written.
    """
    means = certificate_means(results.certificates().values())
    if means:
        body = [[mean.heading, mean.text, str(mean.n)] for mean in means]
        text = tabular(["", "mean", "n"], body, NOTE)
        results.write(results.folder / "certificate.tex", lambda path: path.write_text(text, encoding="ascii"))
