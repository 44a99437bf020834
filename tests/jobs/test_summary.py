"""The table at a job's end: what it says of many photos, and of a job's own."""

from __future__ import annotations

import io
import re

import polars as pl
from rich.console import Console

from invrep.evaluation.column_statistics import Summed
from invrep.jobs.summary import Summary
from invrep.jobs.summary_table import results_table, table_rows
from invrep.results.store import Results


def printed(frame: pl.DataFrame, width: int) -> list[str]:
    images = frame["image"].n_unique()
    columns = {
        column.name: Summed.of(column)
        for column in frame.filter(pl.col("remark") == "").select(pl.exclude("image", "remark"))
    }
    console = Console(file=io.StringIO(), width=width)
    console.print(results_table(Summary(len(frame), images, rows=table_rows(frame), columns=columns), width))
    return console.file.getvalue().splitlines()


def test_two_hundred_photos_are_twelve_rows_and_their_mean_within_60_columns() -> None:
    frame = pl.DataFrame(
        {
            "image": [f"{'deep/' * 20}{k // 2:03d}.jpg" for k in range(400)],
            "restart": [k % 2 for k in range(400)],
            "error": [0.02 * (k % 2) + 0.01 for k in range(400)],
            "psnr": [20.0] * 400,
            "class_kept": [k % 2 for k in range(400)],
            "remark": ["its code is zero" if k < 2 else "" for k in range(400)],
        }
    )  # fmt: skip
    head, first, *rows, more, mean = printed(frame, 80)
    assert head.split() == ["photo", "error", "PSNR", "class", "kept"] and len(rows) == 11
    assert re.fullmatch(r"…[p/de]+000\.jpg +– +– +– *", first)  # it has a remark
    assert re.fullmatch(r"…[p/de]+001\.jpg +2\.00 ± 1\.41 % +20\.0 ± 0\.0 dB +1 of 2 *", rows[0])
    assert more.strip() == "… and 188 more in metrics.csv"
    assert re.fullmatch(r"mean +2\.00 ± 1\.00 % +20\.0 ± 0\.0 dB +199 of 398 *", mean)
    narrow = printed(frame, 60)
    assert max(map(len, narrow)) <= 60 and "001.jpg  " in narrow[2] and narrow[-1].rstrip().endswith("199 of 398")


def test_the_only_pre_image_has_its_photos_name() -> None:
    head, row = printed(pl.DataFrame({"image": ["cat.png"], "restart": [0], "error": [0.01], "remark": [""]}), 80)
    assert head.split()[0] == "photo" and row.split() == ["cat.png", "1.00", "%"]


def test_the_only_photo_has_a_row_for_each_restart_and_a_fall_that_goes_on_is_said(job) -> None:
    outcome = job("restarts=2", "data.path='bundled:coffee'", "data.resize=none")
    rows = [row for _, row in sorted(Results(outcome.folder).rows().items())]
    table = outcome.out.partition("restart ")[2].splitlines()[1:4]
    for line, row in zip(table, rows, strict=False):
        assert line.split() == [str(row["restart"]), f"{100 * row['error']:.2f}", "%", f"{row['psnr']:.1f}", "dB"]
    assert table[2].split()[0] == "mean" and f"error ‖Φ−Φ0‖²/‖Φ0‖²: {table[2].split()[1]} ±" in outcome.out
    tried = re.search(r"still falling: the error of 2 of 2 pre-images; try optim\.steps=(\d+)", outcome.out)
    assert 8 <= int(tried[1]) <= 16
