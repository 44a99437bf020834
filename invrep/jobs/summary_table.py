"""Lay out a job's results as a table: a row for each photo, or for each restart of the only photo."""

from __future__ import annotations

import math
from collections.abc import Mapping

import polars as pl
from rich.table import Table
from rich.text import Text

from invrep.evaluation.column_statistics import Summed
from invrep.jobs.summary import Summary, TableRow
from invrep.messages import printable
from invrep.results.rows import decoded
from invrep.tracking.progress import worded

MOST = 12  # rows
NARROWEST, WIDEST = 12, 40  # characters of a photo's name
BETWEEN = 3  # characters between two columns
HEADS = {"error": "error", "activation": "activation", "psnr": "PSNR", "class_kept": "class kept"}


def table_rows(rows: pl.DataFrame) -> list[TableRow]:
    """Return the first rows of the table.

    Args:
        rows: rows of all pre-images of a job, in the order of image and restart; images are encoded.
    """
    images = rows["image"].unique(maintain_order=True)
    by, names = ("image", images) if len(images) > 1 or rows.height == 1 else ("restart", rows["restart"])
    columns = [name for name in HEADS if name in rows.columns]
    found = []
    for name in names.head(MOST):
        some = rows.filter((pl.col(by) == name) & (pl.col("remark") == ""))
        found.append(TableRow(str(name), {column: Summed.of(some[column]) for column in columns}))
    return found


def results_table(summary: Summary, width: int) -> Table:
    """Return the table: error or activation, PSNR and class kept of the first photos, and the mean of all.

    Args:
        summary: summary of a job with at least one pre-image.
        width: width of the table in characters; names of photos give way.
    """
    names = [name for name in HEADS if (column := summary.columns.get(name)) is not None and column.count]
    restarts = summary.images == 1 and summary.count > 1
    total = summary.count if restarts else summary.images
    cells = [[_cell(name, row.columns) for name in names] for row in summary.rows]
    mean = [_cell(name, summary.columns) for name in names] if total > 1 else []
    heads = [HEADS[name] for name in names]
    columns = zip(heads, *cells, *([mean] if mean else []), strict=True)
    taken = sum(max(map(len, column)) + BETWEEN for column in columns)
    room = min(max(width - taken, NARROWEST), WIDEST)
    table = Table(box=None, pad_edge=False, padding=(0, BETWEEN, 0, 0), header_style="dim")
    table.add_column("restart" if restarts else "photo", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row, values in zip(summary.rows, cells, strict=True):
        table.add_row(Text(row.name if restarts else _cut(printable(decoded(row.name)), room)), *values)
    if (more := total - len(summary.rows)) > 0:
        said = f"… and {more} more in metrics.csv"
        table.add_row(Text(said if len(said) <= room else f"… and {more} more", style="dim"))
    if mean:
        table.add_row(Text("mean"), *mean, style="bold")
    return table


def _cell(name: str, columns: Mapping[str, Summed]) -> str:
    """Return the mean and, of several pre-images, the standard deviation; of classes, how many are kept."""
    column = columns[name]
    if not column.count:
        return "–"
    if name == "class_kept":
        return f"{column.total:.0f} of {column.count}" if column.count > 1 else "yes" if column.total else "no"
    spread = "" if math.isnan(column.deviation) else f" ± {_number(name, column.deviation)}"
    unit = {"error": " %", "psnr": " dB"}.get(name, "")
    return f"{_number(name, column.mean)}{spread}{unit}"


def _number(name: str, value: float) -> str:
    return {"error": f"{100 * value:.2f}", "psnr": f"{value:.1f}"}.get(name) or worded(name, value)


def _cut(name: str, room: int) -> str:
    """Return a name without its beginning if it is long; the end tells a folder's photos apart."""
    return name if len(name) <= room else f"…{name[1 - room :]}"
