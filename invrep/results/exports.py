"""Export a job's results for people: CSV tables and one file of reconstructions. The program never reads them back."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

import polars as pl
import polars.selectors as cs
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from invrep.results.rows import FIRST, LAST, SPREADS, decoded, encoded
from invrep.results.store import Results
from invrep.results.table import CURVE, KEY

MOST_BYTES = 256 * 2**20  # most bytes of reconstructions.safetensors; with more, the file is not written


def export(results: Results) -> None:
    """Write the CSV files and ``reconstructions.safetensors`` from the tables.

    Args:
        results: folder of the job.

    Raises:
        InvrepError: a table is damaged, or a file cannot be written.
    """
    rows = results.frame()
    first = (*FIRST[:2], "activation", *FIRST[2:]) if "activation" in rows.columns else FIRST
    names = [*first, *(name for name in rows.columns if name not in (*first, *LAST)), *LAST]
    plain = rows.select(names).with_columns(pl.col("^class_kept$").fill_nan(None).cast(pl.Int64))
    results.write(results.metrics, lambda path: _csv(path, [plain]))
    results.write(results.curves, lambda path: _csv(path, map(_points, results.table.chunks())))
    spreads = results.spread_table.collect(lambda rows: rows).sort("image")
    if spreads.height:
        columns = ("image", "restarts", *SPREADS, "content")
        results.write(results.spread, lambda path: _csv(path, [spreads.select(columns)]))
    export_certificates(results)
    _reconstructions(results, rows)


def export_certificates(results: Results) -> None:
    """Write ``certificate.csv`` from its table, without columns that are blank throughout; nothing without a row.

    Args:
        results: folder of the job.

    Raises:
        InvrepError: the table is damaged, or the file cannot be written.
    """
    if not results.certificate_table.files():
        return
    rows = results.certificate_table.collect(lambda rows: rows.drop("remark", "settings")).sort(KEY)
    numbers = [column.name for column in rows.select(cs.float()) if not column.is_nan().all()]
    columns = [*KEY, *(name for name in rows.columns if name in numbers), "content"]
    results.write(results.certificate, lambda path: _csv(path, [rows.select(columns)]))


def _csv(path: Path, tables: Iterable[pl.DataFrame]) -> None:
    """Write tables with equal columns into one CSV file; NaN is blank, and bytes that are no UTF-8 stay encoded."""
    with path.open("wb") as file:
        for number, table in enumerate(tables):
            plain = pl.col("image").str.replace_all("%25", "%", literal=True)
            table.with_columns(cs.float().fill_nan(None), plain).write_csv(file, include_header=number == 0)


def _points(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the points of the rows' curves, one row for each point."""
    lists = [name for name in rows.columns if name.startswith(CURVE)]
    points = rows.select(*KEY, *lists).explode(lists).rename(lambda name: name.removeprefix(CURVE))
    points = points.with_columns(cs.float().cast(pl.Float32))  # half as many digits, and as many as a pass has
    first = ("image", "restart", "pass", "activation" if "activation" in points.columns else "error", "energy")
    return points.drop_nulls("pass").select(*dict.fromkeys([*first, *points.columns]))


def _reconstructions(results: Results, rows: pl.DataFrame) -> None:
    """Write all reconstructions into one file; above ``MOST_BYTES``, remove the file. An up-to-date file stays."""
    named = ((decoded(image), restart) for image, restart in rows.select(KEY).iter_rows())
    keys = [key for key in named if results.part(*key).exists()]
    if any(total > MOST_BYTES for total in accumulate(results.part(*key).stat().st_size for key in keys)):
        results.reconstructions.unlink(missing_ok=True)
        return
    table = io.BytesIO()
    rows.drop("seconds").write_ipc(table)
    digest = hashlib.sha256(table.getbuffer()).hexdigest()
    with suppress(OSError, SafetensorError), safe_open(results.reconstructions, "pt") as file:
        if (file.metadata() or {}).get("rows") == digest:
            return
    plain = [f"{_utf8(image)}/{restart}" for image, restart in keys]
    names = plain if len(set(plain)) == len(plain) else [f"{encoded(image)}/{restart}" for image, restart in keys]
    pixels = results.pixels(keys)
    tensors = {name: pixels[key] for name, key in zip(names, keys, strict=True)}
    results.write(results.reconstructions, lambda path: save_file(tensors, path, metadata={"rows": digest}))


def _utf8(image: str) -> str:
    return encoded(image).replace("%25", "%")
