"""Average certificates over photos, with intervals, and write them as a LaTeX table."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from invrep.evaluation.certificate.columns import ordered
from invrep.evaluation.paired import photo_means
from invrep.reporting.layouts.latex import tabular
from invrep.reporting.means import Mean, mean_of
from invrep.results.store import Results

NOTE = "Means over photos, restarts averaged first, with 95 % bootstrap intervals (10 000 resamples of the photos)."
APART = ("image", "restart", "content", "settings", "remark")  # columns that are no measure


def certificate_means(rows: Collection[Mapping[str, Any]]) -> list[Mean]:
    """Return the mean of each column of certificates that has a finite value, in the order of ``certificate.csv``.

    Args:
        rows: rows of ``certificate.csv``.
    """
    found = []
    for name in ordered(name for name in dict.fromkeys(name for row in rows for name in row) if name not in APART):
        values = list(photo_means(rows, name).values())
        if values:
            found.append(mean_of(name, values))
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
