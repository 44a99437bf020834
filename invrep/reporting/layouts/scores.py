"""Write a benchmark's table: means over photos with bootstrap intervals, and the failure rate, of each method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from invrep.evaluation.paired import photo_means
from invrep.reporting.layouts.cells import (
    Cell,
    Keys,
    Label,
    Labels,
    is_miniature,
    label_of,
    listed,
    named,
    save,
    status_of,
    write_csv,
)
from invrep.reporting.layouts.latex import tabular
from invrep.reporting.layouts.tables import markdown
from invrep.reporting.means import Mean, mean_of
from invrep.results.rows import SPREADS
from invrep.results.store import Results

NOTE = "Means over n photos, restarts averaged first, with 95 % bootstrap intervals (10 000 resamples of the photos)."
FAILURES = "failure_rate"


def scores(
    cells: Sequence[Cell],
    stem: Path,
    *,
    rows: Keys,
    columns: Keys,
    values: Mapping[str, str],
    labels: Labels | None = None,
    note: str | None = None,
    miniature: str = "Miniature by quick=true: no result.",
) -> list[Path]:
    """Write means over photos with bootstrap intervals as CSV (one line for each cell), Markdown and LaTeX (booktabs).

    Markdown and LaTeX have a line for each value of a row. Its last lines are the failure rate, which is the share of
    pre-images without an error, and the number of photos.

    Args:
        cells: jobs of the sweep.
        stem: path of the files without a suffix.
        rows: keys of the rows.
        columns: keys of the columns.
        values: printed name of each column of ``metrics.csv``, ``certificate.csv`` or ``spread.csv``. Markdown and
            LaTeX leave out a value that a row lacks.
        labels: for each key the names of its values, or a format such as ``λ = {}``.
        note: text below the table; None: no text besides what the means are.
        miniature: further text with ``quick=true``.

    Returns:
        Paths of the files.

    Raises:
        InvrepError: a key is invalid, or a file cannot be written.
    """
    rows, columns = listed(rows), listed(columns)
    groups: dict[tuple[Label, Label], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((label_of(cell.values, rows), label_of(cell.values, columns)), []).append(cell)
    names = {**values, FAILURES: "failed"}
    found = {at: {name: _score(some, name) for name in names} for at, some in groups.items()}
    lines: list[list[Any]] = []
    for at, some in groups.items():
        status = status_of(some, any(found[at][name].n for name in values))
        for score in found[at].values():
            ends = score.interval or (math.nan, math.nan)
            numbers = ["" if math.isnan(number) else f"{number:.6g}" for number in (score.mean, *ends)]
            lines.append([*at[0], *at[1], score.name, *numbers, score.n, status])
    heads = list(dict.fromkeys(column for _, column in groups))
    top = ["", *(named(columns, head, labels or {}) for head in heads)]
    body = []
    for row in dict.fromkeys(row for row, _ in groups):
        own = [found.get((row, head), {}) for head in heads]
        side = named(rows, row, labels or {})
        for name in names:
            texts = [scored[name].text if scored else "" for scored in own]
            body += [[f"{side}: {names[name]}", *texts]] if any(texts) else []
        body.append([f"{side}: n", *(_photos(groups.get((row, head), [])) for head in heads)])
    said = [NOTE, miniature if is_miniature(cells) else "", note or ""]
    below = " ".join(part for part in said if part)
    header = [*rows, *columns, "value", "mean", "low", "high", "n", "status"]
    written: dict[str, Callable[[Path], Any]] = {
        ".csv": lambda path: write_csv(path, header, lines),
        ".md": lambda path: path.write_text(markdown(top, body, below), encoding="utf-8", errors="replace"),
        ".tex": lambda path: path.write_text(tabular(top, body, below), encoding="ascii"),
    }
    return save(stem, written)


def _score(cells: Sequence[Cell], name: str) -> Mean:
    if name == FAILURES:
        numbers = _failures(cells)
    else:
        numbers = [value for cell in cells for value in photo_means(_rows(cell, name), name).values()]
    return mean_of(name, numbers)


def _rows(cell: Cell, name: str) -> list[dict[str, Any]]:
    """Return the rows that have a column, without remarked ones."""
    if name in SPREADS:
        spreads = cell.read(Results.spreads)
        return [spreads[image] for image in cell.images if image in spreads]
    rows = {key: row for key, row in cell.rows().items() if not row.get("remark")}
    if any(name in row for row in rows.values()):
        return list(rows.values())
    certified = cell.read(Results.certificates)
    return [certified[key] for key in rows if key in certified]


def _failures(cells: Sequence[Cell]) -> list[float]:
    """Return for each photo the share of its pre-images that are not finished or have no error."""
    photos = []
    for cell in cells:
        done = [image for (image, _), row in cell.rows().items() if not row.get("remark")]
        photos += [1 - done.count(image) / cell.restarts for image in cell.images]
    return photos


def _photos(cells: Sequence[Cell]) -> str:
    return str(len({image for cell in cells for (image, _), row in cell.rows().items() if not row.get("remark")}))
