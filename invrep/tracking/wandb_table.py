"""Build W&B's table of results, with photo and pre-image in its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from PIL import Image

from invrep.results.rows import FIRST, LAST
from invrep.results.store import Results
from invrep.tracking.progress import worded
from invrep.tracking.wandb_values import utf8

PICTURED = 100  # rows with pictures: with photos of 224 pixels, about 20 MB
SIDE = 256  # pixels; longest side of a picture


def table(results: Results, rows: Sequence[Mapping[str, Any]], title: str, *, pictures: bool) -> wandb.Table:
    """Return the rows of ``metrics.csv``; the first hundred begin with photo and pre-image, of 256 pixels at most.

    Args:
        results: folder of the job.
        rows: rows, by column.
        title: name of representation and layer, for captions.
        pictures: bool; False: no photos and no pre-images.
    """
    names = _columns(rows)
    photos: dict[str, wandb.Image | None] = {}
    data = []
    for number, row in enumerate(rows):
        image, restart = row["image"], row["restart"]
        photo = pre_image = None
        if pictures and number < PICTURED:
            if image not in photos:  # restarts share one file
                photos[image] = picture(results.photo(image), image)
            caption = f"{image}, {title}, restart {restart}: {_measure(row)}"
            photo, pre_image = photos[image], picture(results.picture(image, restart), caption)
        data.append([photo, pre_image, *(_cell(row.get(name)) for name in names)])
    empty = 2 if not pictures else 1 if not any(photos.values()) else 0  # columns without a picture
    columns: list[str | int] = ["photo", "pre-image", *names]
    return wandb.Table(columns=columns[empty:], data=[line[empty:] for line in data])


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns in the order of ``metrics.csv``, without the photo's hash."""
    known = dict.fromkeys(name for row in rows for name in row)
    others = [name for name in known if name not in LAST]
    order = dict.fromkeys(("image", "restart", "activation", *FIRST, *others, *LAST))
    return [name for name in order if name in known and name != "content"]


def _measure(row: Mapping[str, Any]) -> str:
    """Return a row's error or activation as text, or its remark."""
    shows = "activation" if "activation" in row else "error"
    return row.get("remark") or f"{shows} {worded(shows, row[shows])}"


def picture(path: Path, caption: str, side: int = SIDE) -> wandb.Image | None:
    """Return a PNG for W&B, the file itself unless it is too large; None without the file.

    Args:
        path: path of the PNG.
        caption: caption.
        side: longest side in pixels, to which a larger picture is reduced.
    """
    if not path.is_file():
        return None
    with Image.open(path) as image:
        if max(image.size) <= side:
            return wandb.Image(str(path), caption=utf8(caption))
        image.thumbnail((side, side))
        return wandb.Image(image.copy(), caption=utf8(caption))


def _cell(value: Any) -> Any:
    """Return a value for a cell; a blank one instead of NaN."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return utf8(value) if isinstance(value, str) else value
