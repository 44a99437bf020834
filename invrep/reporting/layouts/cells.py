"""What a layout arranges: the jobs of a sweep, their numbers, and the keys that give a place to each."""

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
from invrep.messages import layer_name
from invrep.results.atomic_files import atomic
from invrep.results.rows import SPREADS
from invrep.results.store import Results

DPI = 300
Keys = str | Sequence[str]
Labels = Mapping[str, str | Mapping[Any, str]]
Label = tuple[Any, ...]


@dataclass(frozen=True)
class Cell:
    """A job of a sweep, as a layout sees it.

    Attributes:
        values: config key → what it is in this job.
        results: None where the job failed before it had a folder.
        status: ``done``, why the job failed, or ``running``, which is left behind by a job that was killed.
        images: the ids of its photos.
        restarts: how many pre-images each has.
    """

    values: Mapping[str, Any]
    results: Results | None
    status: str
    images: Sequence[str]
    restarts: int

    def rows(self) -> dict[Key, dict[str, Any]]:
        """Return the job's finished rows of ``metrics.csv``; its folder may hold those of more photos."""
        keys = [(image, restart) for image in self.images for restart in range(self.restarts)]
        return self._read(lambda results: results.rows(keys))

    def _read(self, read: Callable[[Results], dict[Any, dict[str, Any]]]) -> dict[Any, dict[str, Any]]:
        """Read results; a job may have failed of their damage, and the other jobs are laid out all the same."""
        try:
            return {} if self.results is None else read(self.results)
        except InvrepError:
            if self.status == "done":
                raise
            return {}

    def numbers(self, name: str) -> list[float]:
        """Return what a table or a plot takes the mean of, one number for each pre-image or each photo.

        Args:
            name: a column of ``metrics.csv`` or, for each photo, of ``spread.csv``; ``root_`` before a column takes
                its root; ``restart_std`` is the standard deviation of ``root_error`` over a photo's restarts.
        """
        if name in SPREADS:
            spreads = self._read(Results.spreads)
            found = [spreads[image][name] for image in self.images if image in spreads]
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
    """Return the worst of several jobs' ends, as a table says it."""
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
    """Write a header and lines."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(lines)


def listed(keys: Keys) -> list[str]:
    """Return keys as a list."""
    return [keys] if isinstance(keys, str) else list(keys)


def label_of(values: Mapping[str, Any], keys: Sequence[str]) -> Label:
    """Return what the keys are in a job.

    Raises:
        InvrepError: there is no such key.
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
    """Return what is printed for the keys' values."""
    words = []
    for key, value in zip(keys, label, strict=True):
        names = labels.get(key, "{}")
        words.append(names.format(value) if isinstance(names, str) else names.get(value, names.get(str(value), value)))
    return ", ".join(str(word) for word in words if word != "")


def is_miniature(cells: Iterable[Cell]) -> bool:
    """Return whether a sweep was one by ``quick=true``, which no reader should take for the real one."""
    return any(cell.values.get("quick") is True for cell in cells)


def figure_files(figure: Figure, cells: Iterable[Cell]) -> dict[str, Callable[[Path], Any]]:
    """Return how a figure is written, by suffix; across a miniature stands that it is one."""
    if is_miniature(cells):
        width, height = figure.get_size_inches()
        look: dict[str, Any] = {"color": "red", "alpha": 0.5, "ha": "center", "va": "center", "fontweight": "bold"}
        figure.text(0.5, 0.5, "miniature", fontsize=min(8 * width, 40 * height), **look)
    return {
        ".png": lambda path: figure.savefig(path, format="png", facecolor="white"),
        # without the time, so that the same results give the same file
        ".pdf": lambda path: figure.savefig(path, format="pdf", facecolor="white", metadata={"CreationDate": None}),
    }


def save(stem: Path, files: Mapping[str, Callable[[Path], Any]]) -> list[Path]:
    """Write each file, whole or not at all, and return the paths."""
    paths = []
    for suffix, write in files.items():
        path = stem.with_name(stem.name + suffix)
        atomic(path, write)
        paths.append(path)
    return paths
