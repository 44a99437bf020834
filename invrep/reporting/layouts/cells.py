"""Prepare the jobs of a sweep for layouts: their numbers, and the keys that place them in rows and columns."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import stdev
from typing import Any

from matplotlib.figure import Figure

from invrep.data.batching import Key
from invrep.errors import InvrepError, nearest
from invrep.evaluation.certificate.columns import OF_PARTS
from invrep.messages import layer_name
from invrep.reporting.comparison import CERTIFIED
from invrep.results.atomic_files import atomic
from invrep.results.rows import SPREADS
from invrep.results.store import Results

DPI = 300
Keys = str | Sequence[str]
Labels = Mapping[str, str | Mapping[Any, str]]
Label = tuple[Any, ...]


@dataclass(frozen=True)
class Cell:
    """Hold a job of a sweep, for a layout.

    Attributes:
        values: values of the job's config, by dotted key.
        results: folder of the job; None if it failed before it had one.
        status: ``done``, the reason of a failure, or ``running``, which a killed job leaves behind.
        images: ids of the job's photos.
        restarts: number of pre-images of each photo.
    """

    values: Mapping[str, Any]
    results: Results | None
    status: str
    images: Sequence[str]
    restarts: int

    def rows(self) -> dict[Key, dict[str, Any]]:
        """Return the finished rows of this job's photos and restarts, by key; its folder may hold more."""
        keys = [(image, restart) for image in self.images for restart in range(self.restarts)]
        return self.read(lambda results: results.rows(keys))

    def read(self, read: Callable[[Results], dict[Any, dict[str, Any]]]) -> dict[Any, dict[str, Any]]:
        """Return ``read(results)``; an empty dictionary without results, or if they are damaged and the job failed.

        Damage may be why the job failed. The other jobs are laid out all the same.

        Raises:
            InvrepError: results of a job that is done are damaged.
        """
        try:
            return {} if self.results is None else read(self.results)
        except InvrepError:
            if self.status == "done":
                raise
            return {}

    def numbers(self, name: str) -> list[float]:
        """Return the numbers that a table or a plot averages, without NaN and without remarked rows.

        Args:
            name: column of ``metrics.csv`` or ``certificate.csv``, for one number for each pre-image, or of
                ``spread.csv``, for one for each photo. ``root_COLUMN`` is the square root of a column. ``restart_std``
                is the standard deviation of ``root_error`` over the restarts of each photo.
        """
        if name in SPREADS:
            spreads = self.read(Results.spreads)
            found = [spreads[image][name] for image in self.images if image in spreads]
        elif name in CERTIFIED or name.startswith(tuple(f"{column}/" for column in OF_PARTS)):
            certified, keys = self.read(Results.certificates), self.rows()
            found = [certified[key].get(name, math.nan) for key in keys if key in certified]
        elif name == "restart_std":
            items = [item for item in self.rows().items() if not item[1].get("remark")]
            groups = [[row["root_error"] for _, row in some] for _, some in groupby(items, lambda item: item[0][0])]
            found = [stdev(group) for group in groups if len(group) > 1]
        else:
            rows = [row for row in self.rows().values() if not row.get("remark")]
            plain = name.removeprefix("root_")
            squared = bool(rows) and name not in rows[0] and plain in rows[0]
            found = [math.sqrt(row[plain]) if squared else row.get(name, math.nan) for row in rows]
        return [value for value in found if not math.isnan(value)]


def status_of(cells: Iterable[Cell], some: bool) -> str:
    """Return the worst status of several jobs, as text for a table's cell.

    Args:
        cells: jobs.
        some: bool; True if the cell has a number. Finished jobs are then ``done``, otherwise ``no value``.
    """
    ends = {cell.status for cell in cells}
    if ends == {"done"}:
        return "done" if some else "no value"
    if "failed" in ends or "running" in ends:
        return "failed" if "failed" in ends else "unfinished"
    return min(ends - {"done"})


def spread_of(numbers: Sequence[float], kind: str) -> float:
    """Return ``std`` (with n − 1) or ``sem``, 1.96 standard errors of the mean; NaN for fewer than two numbers."""
    if len(numbers) < 2:
        return math.nan
    return stdev(numbers) * (1 if kind == "std" else 1.96 / math.sqrt(len(numbers)))


def write_csv(path: Path, header: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file with a header and lines."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(lines)


def listed(keys: Keys) -> list[str]:
    """Return one key or several keys as a list."""
    return [keys] if isinstance(keys, str) else list(keys)


def label_of(values: Mapping[str, Any], keys: Sequence[str]) -> Label:
    """Return the values of some keys in a job.

    Raises:
        InvrepError: a key does not exist; the message names the nearest.
    """
    for key in keys:
        if key not in values:
            raise InvrepError(f"A layout arranges by {key!r}, which is no key of the config; {nearest(key, values)}.")
    found = [(key, values[key]) for key in keys]
    return tuple(
        value if not isinstance(value, list | dict) else layer_name(value) if key == "layer" else str(value)
        for key, value in found
    )


def named(keys: Sequence[str], label: Label, labels: Labels) -> str:
    """Return the text for the values of some keys.

    Args:
        keys: keys.
        label: value of each key.
        labels: for each key the names of its values, or a format such as ``λ = {}``.
    """
    words = []
    for key, value in zip(keys, label, strict=True):
        names = labels.get(key, "{}")
        words.append(names.format(value) if isinstance(names, str) else names.get(value, names.get(str(value), value)))
    return ", ".join(str(word) for word in words if word != "")


def is_miniature(cells: Iterable[Cell]) -> bool:
    """Return whether a sweep is a miniature by ``quick=true``; its tables and figures are marked so."""
    return any(cell.values.get("quick") is True for cell in cells)


def figure_files(figure: Figure, cells: Iterable[Cell]) -> dict[str, Callable[[Path], Any]]:
    """Return the functions that write a figure as PNG and PDF, by suffix; a miniature's figure is marked across."""
    if is_miniature(cells):
        width, height = figure.get_size_inches()
        look: dict[str, Any] = {"color": "red", "alpha": 0.5, "ha": "center", "va": "center", "fontweight": "bold"}
        figure.text(0.5, 0.5, "miniature", fontsize=min(8 * width, 40 * height), **look)
    return {
        ".png": lambda path: figure.savefig(path, format="png", facecolor="white"),
        # without the time of creation, the same results give the same file
        ".pdf": lambda path: figure.savefig(path, format="pdf", facecolor="white", metadata={"CreationDate": None}),
    }


def save(stem: Path, files: Mapping[str, Callable[[Path], Any]]) -> list[Path]:
    """Write each file whole or not at all, and return the paths.

    Args:
        stem: path without a suffix.
        files: function that writes the file at a path, by suffix.

    Raises:
        InvrepError: a file cannot be written.
    """
    paths = []
    for suffix, write in files.items():
        path = stem.with_name(stem.name + suffix)
        atomic(path, write)
        paths.append(path)
    return paths
