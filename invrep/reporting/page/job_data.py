"""Describe a job for the page's script: its place in its group, its means, its curves and its pre-images."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from invrep.data.batching import Key
from invrep.evaluation.certificate.columns import heading, ordered, worded
from invrep.evaluation.certificate.sentences import sentences
from invrep.objectives.code_selection import boxes_in
from invrep.reporting.comparison import Run
from invrep.reporting.page.starts import start_of
from invrep.reporting.page.table import OF_A_PICTURE, label
from invrep.reporting.page.thumbnails import Pictures
from invrep.results.rows import SPREADS

EVERY = 2000  # most pre-images whose curves keep every point; a page of more keeps about 40 of 144
RATIO = 1.1  # of the passes at two points of a curve that does not


class Axes:
    """Collect the axes of passes that the curves of a page share.

    Args:
        count: number of pre-images on the page.

    Attributes:
        passes: axes, each a list of passes.
    """

    def __init__(self, count: int) -> None:
        self.passes: list[list[int]] = []
        self._every = count <= EVERY
        self._known: dict[tuple[int, ...], tuple[int, list[int]]] = {}

    def curve(self, passes: Sequence[int], values: Sequence[float]) -> tuple[int, list[float | None]]:
        """Return the number of a curve's axis, and its values there, with four digits.

        Args:
            passes: recorded passes.
            values: value at each of them.
        """
        key = tuple(passes)
        if key not in self._known:
            kept = list(range(len(key))) if self._every else _sparse(key)
            self._known[key] = len(self.passes), kept
            self.passes.append([key[k] for k in kept])
        number, kept = self._known[key]
        return number, [_short(values[k]) for k in kept] if values else []


def _sparse(passes: Sequence[int]) -> list[int]:
    """Return the places of the first ten passes, of passes by ratio, and of the last one."""
    kept: list[int] = []
    for k, at in enumerate(passes):
        if at <= 10 or k == len(passes) - 1 or at >= RATIO * passes[kept[-1]]:
            kept.append(k)
    return kept


def film_of(run: Run, key: Key) -> Path | None:
    """Return the path of a pre-image's film; None without one."""
    return next((p for suffix in ("mp4", "gif") if (p := run.results.film(*key, suffix)).is_file()), None)


def job_data(
    run: Run,
    keys: Sequence[Key],
    swept: Mapping[str, Sequence[Any]],
    photos: Mapping[tuple[str, str], int],
    box: Pictures,
    axes: Axes,
    *,
    start_side: int | None,
) -> dict[str, Any]:
    """Return the data of one job: its point in the sweep, its means, its mean curve, and its cells by photo number.

    Args:
        run: job.
        keys: image ids and restarts of its pre-images on the page.
        swept: values of each swept key, in order.
        photos: number of each photo on the page, by id and content.
        box: pictures of the page.
        axes: axes of the curves on the page.
        start_side: pixels of the longer side of a start's thumbnail; None: no starts.
    """
    curves = run.results.curve_points(keys, ["pass", run.shows]) if keys else {}
    cells: dict[int, dict[str, Any]] = {}
    for key in keys:
        row = run.rows[key]
        seen = box.paths[run.results.photo(key[0])]
        cell = {"photo": [seen.thumb, seen.full], "boxes": boxes_in(row), "restarts": []}
        axis, curve = axes.curve(curves[key]["pass"], curves[key].get(run.shows, []))
        restart = _restart(run, key, box, start_side) | {"axis": axis, "curve": curve}
        cells.setdefault(photos[key[0], row["content"]], cell)["restarts"].append(restart)
    config = run.config
    means = run.results.mean_curves(run.rows)
    axis, curve = axes.curve([at for at, _ in means], [terms.get(run.shows, math.nan) for _, terms in means])
    return {
        "point": [values_.index(run.point[key]) for key, values_ in swept.items()],
        "label": label(run),
        "shows": run.shows,
        "status": run.status,
        "message": as_text(run.job.message if run.job else ""),
        "n": len(run.rows),
        "mean": _short(run.means.get(run.shows, (None, None))[0]),
        "intervals": {
            name: [_short(found[0]), *map(_short, found[1] or ())]
            for name in (run.shows, *SPREADS)
            if (found := run.interval(name)) is not None
        },
        "axis": axis,
        "curve": curve,
        "field": run.used.get("receptive_field"),
        "stride": run.used.get("stride"),
        "start": run.used.get("start"),
        "region": None if config is None else config.get("objective", {}).get("region"),
        "command": _command(run),
        "config": run.results.config.read_text("utf-8", "replace") if config is not None else "",
        "folder": box.link(run.results.folder),
        "cells": cells,
    }


def _restart(run: Run, key: Key, box: Pictures, start_side: int | None) -> dict[str, Any]:
    """Return the data of one pre-image but for its curve, see :func:`job_data`."""
    row, film, picture = run.rows[key], film_of(run, key), box.paths[run.results.picture(*key)]
    start = None if start_side is None else start_of(run, key)
    return (
        {
            "n": key[1],
            "value": _short(row.get(run.shows)),
            "picture": [picture.thumb, picture.full],
            "measures": [_short(row.get(name)) for name in OF_A_PICTURE],
            "class": row.get("class") or "",
        }
        | ({"more": int(row["passes_to_try"])} if row.get("still_falling") == 1 else {})
        | _certificate(run.certificates.get(key))
        | ({"film": box.film(film), "mp4": film.suffix == ".mp4"} if film else {})
        | ({"start": box.put(start, start_side)} if start is not None and start_side is not None else {})
    )


def _certificate(row: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the sheet of a pre-image's certificate: its sentences, and its columns as pairs of texts."""
    if row is None:
        return {}
    values = {name: row[name] for name in row if isinstance(row[name], float) and math.isfinite(row[name])}
    lines = [[heading(name), worded(name, values[name])] for name in ordered(values)]
    return {"certificate": {"sentences": sentences(row), "columns": lines}}


def _command(run: Run) -> str:
    """Return the command that runs this job alone; for a job without a sweep, the command that was typed."""
    if run.job is not None:
        return as_text(shlex.join(["python", "train.py", *run.job.overrides]))
    return as_text(f"python {(run.config or {}).get('provenance', {}).get('command', 'train.py')}")


def as_text(text: str) -> str:
    """Return text as valid UTF-8: bytes of a file name that are no UTF-8 are replaced."""
    return text.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")


def _short(value: float | None) -> float | None:
    """Return a number rounded to the four digits that a page shows; None for None, NaN and infinity."""
    if value is None or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")
