"""Convert between finished pre-images and rows of the table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import polars as pl
from torch import Tensor

from invrep.data.batching import Key
from invrep.results.table import CURVE

SPREADS = ("spread_ssim", "spread_lpips", "spread_code")
FIRST = ("image", "restart", "error", "root_error", "pairwise_error", "psnr", "ssim", "energy")
LAST = ("passes", "seconds", "distance", "code_norm", "remark", "content")


@dataclass
class Finished:
    """Hold a finished pre-image.

    Attributes:
        row: values of its row of ``metrics.csv``, by column.
        curve: list of (pass, {name: value}) at the recorded passes.
        pixels: float32 tensor (C, H, W); 0 to 1 is black to white, unclipped.
    """

    row: dict[str, Any]
    curve: list[tuple[int, dict[str, float]]]
    pixels: Tensor

    @property
    def key(self) -> Key:
        """Return the image id and the restart."""
        return self.row["image"], self.row["restart"]


def encoded(image: str) -> str:
    """Return an image id as valid UTF-8: ``%`` and bytes of a file name that are no UTF-8 are percent-encoded."""
    return "".join(quote(c, errors="surrogateescape") if c == "%" or "\ud800" <= c <= "\udfff" else c for c in image)


def decoded(image: str) -> str:
    """Return the image id from the result of :func:`encoded`."""
    return unquote(image, errors="surrogateescape") if "%" in image else image


def row_of(finished: Finished) -> dict[str, Any]:
    """Return a pre-image's row of :attr:`Results.table`, with its curve as columns ``curve.NAME`` of lists."""
    curve: dict[str, list[Any]] = {f"{CURVE}pass": [at for at, _ in finished.curve]}
    for name in dict.fromkeys(name for _, values in finished.curve for name in values):
        curve[f"{CURVE}{name}"] = [values.get(name, math.nan) for _, values in finished.curve]
    return finished.row | curve | {"image": encoded(finished.key[0])}


def as_rows(frame: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the rows of a frame as dictionaries, with decoded image ids and NaN for a blank number."""
    for row in frame.iter_rows(named=True):
        yield {name: math.nan if value is None else value for name, value in row.items()} | {
            "image": decoded(row["image"])
        }
