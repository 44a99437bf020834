"""Tables and figures of a sweep's results, in the arrangements that papers use.

Each function takes the sweep's jobs and a path without a suffix, and returns the paths that it has written. What is in
a row and what in a column is said by *keys*: config keys by which the jobs differ (``layer``, ``prior.tv.weight``,
``cell.layer``), ``rep`` and other groups, ``image``, ``restart``, and in tables ``value``.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from omegaconf import OmegaConf
from PIL import Image
from rich.console import Console

from invrep.errors import InvrepError, choice, nearest
from invrep.finish import boxes
from invrep.images import read
from invrep.job import assemble
from invrep.results import SPREADS, Key, Results, _atomic

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
        status: ``done``, ``failed`` or ``running``, which is left behind by a job that was killed.
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
        found = self.results.rows() if self.results is not None else {}
        keys = [(image, restart) for image in self.images for restart in range(self.restarts)]
        return {key: found[key] for key in keys if key in found}

    def numbers(self, name: str) -> list[float]:
        """Return what a table or a plot takes the mean of, one number for each pre-image or each photo.

        Args:
            name: a column of ``metrics.csv`` or, for each photo, of ``spread.csv``; ``root_`` before a column takes
                its root; ``restart_std`` is the standard deviation of ``root_error`` over a photo's restarts.
        """
        if name in SPREADS:
            spreads = self.results.spreads() if self.results is not None else {}
            found = [spreads[image][name] for image in self.images if image in spreads]
        elif name == "restart_std":
            rows = self.rows().items()
            groups = [[row["root_error"] for _, row in some] for _, some in groupby(rows, lambda item: item[0][0])]
            found = [stdev(group) for group in groups if len(group) > 1]
        else:
            rows = list(self.rows().values())
            plain = name.removeprefix("root_")
            squared = bool(rows) and name not in rows[0] and plain in rows[0]
            found = [math.sqrt(row[plain]) if squared else row.get(name, math.nan) for row in rows]
        return [value for value in found if not math.isnan(value)]


# --- tables ----------------------------------------------------------------------------------------------------------

_LATEX = {
    "λ": r"$\lambda$", "β": r"$\beta$", "Φ": r"$\Phi$", "‖": r"$\|$", "²": "$^2$", "₀": "$_0$", "±": r"$\pm$",
    "−": "$-$", "×": r"$\times$", "√": r"$\surd$", "†": r"$\dagger$", "·": r"$\cdot$", "…": r"\dots ",
    "%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#",
}  # fmt: skip


def table(
    cells: Sequence[Cell],
    stem: Path,
    *,
    rows: Keys,
    columns: Keys,
    values: Mapping[str, str],
    spread: str = "std",
    scale: float = 100.0,
    labels: Labels | None = None,
    note: str | None = None,
) -> list[Path]:
    """Write means ± spread over photos as CSV (one line for each cell), Markdown and LaTeX (booktabs).

    A cell of which nothing is finished says so; one of which only some photos are is marked with †.

    Args:
        cells: the sweep's jobs.
        stem: the files' path without a suffix.
        rows: keys of the rows; with several ``values``, one of ``rows`` and ``columns`` has to name ``value``.
        columns: keys of the columns.
        values: what stands in a cell, see :meth:`Cell.numbers`, → what it is called.
        spread: ``std`` (CVPR) or ``sem``, 1.96 standard errors of the mean (IJCV).
        scale: what values are multiplied by; 100 for per cent.
        labels: key → its values' names, or a format such as ``λ = {}``.
        note: stands below.
    """
    choice("spread", spread, ("std", "sem"))
    rows, columns = _listed(rows), _listed(columns)
    names = {**(labels or {}), "value": values}
    gathered: dict[tuple[Label, Label], tuple[list[float], list[Cell]]] = {}
    for cell in cells:
        for value in values:
            known = {**cell.values, "value": value}
            place = _label(known, rows), _label(known, columns)
            numbers, some = gathered.setdefault(place, ([], []))
            numbers += cell.numbers(value)
            some.append(cell)
    heads = list(dict.fromkeys(column for _, column in gathered))
    sides = list(dict.fromkeys(row for row, _ in gathered))
    text, lines = {}, []
    for (row, column), (numbers, some) in gathered.items():
        numbers = [scale * number for number in numbers]
        status = _status(some, bool(numbers))
        middle = mean(numbers) if numbers else math.nan
        around = _spread(numbers, spread)
        mark = " †" if numbers and status != "done" else ""
        shown = f"{middle:.1f}" + ("" if math.isnan(around) else f" ± {around:.1f}") + mark
        text[row, column] = shown if numbers else status
        ends = ["" if math.isnan(number) else f"{number:.6g}" for number in (middle, around)]
        lines.append([*row, *column, *ends, len(numbers), status])
    header = [*rows, *columns, "mean", "std" if spread == "std" else "1.96 sem", "n", "status"]
    if any("†" in one for one in text.values()):
        note = f"{note + ' ' if note else ''}† Not all photos."
    top = ["", *(_named(columns, head, names) for head in heads)]
    body = [[_named(rows, side, names), *(text.get((side, head), "") for head in heads)] for side in sides]
    written = {
        ".csv": lambda path: _write_csv(path, header, lines),
        ".md": lambda path: path.write_text(_markdown(top, body, note), encoding="utf-8"),
        ".tex": lambda path: path.write_text(_latex(top, body, note), encoding="utf-8"),
    }
    return _save(stem, written)


def _status(cells: Iterable[Cell], some: bool) -> str:
    """Return the worst of several jobs' ends, as a table says it."""
    ends = {cell.status for cell in cells}
    if ends == {"done"}:
        return "done" if some else "no value"
    return "failed" if "failed" in ends else "unfinished"


def _spread(numbers: Sequence[float], kind: str) -> float:
    if len(numbers) < 2:
        return math.nan
    return stdev(numbers) * (1 if kind == "std" else 1.96 / math.sqrt(len(numbers)))


def _write_csv(path: Path, header: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(lines)


def _markdown(top: Sequence[str], body: Sequence[Sequence[str]], note: str | None) -> str:
    lines = [top, ["---"] * len(top), *body]
    text = "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
    return text + (f"\n{note}\n" if note else "")


def _latex(top: Sequence[str], body: Sequence[Sequence[str]], note: str | None) -> str:
    def escape(text: str) -> str:
        return "".join(_LATEX.get(letter, letter) for letter in text)

    lines = [f"{' & '.join(map(escape, line))} \\\\" for line in [top, *body]]
    inner = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    below = f"\n% {note}" if note else ""
    return f"\\begin{{tabular}}{{l{'c' * (len(top) - 1)}}}\n{inner}\n\\end{{tabular}}{below}\n"


# --- pictures --------------------------------------------------------------------------------------------------------


@dataclass
class _Tile:
    """A picture with what stands above and below it; ``path`` None where it is missing, and ``below`` says why."""

    path: Path | None
    above: str = ""
    below: str = ""
    boxes: Sequence[tuple[int, int, int, int]] = ()


def grid(
    cells: Sequence[Cell],
    stem: Path,
    *,
    rows: Keys = "image",
    columns: Keys,
    photo: bool = True,
    value: str | None = None,
    wrap: int | None = None,
    box: bool = False,
    labels: Labels | None = None,
) -> list[Path]:
    """Draw pre-images as PNG (300 dpi) and PDF, with the photos before or above them; missing ones are marked.

    Where neither ``rows`` nor ``columns`` names ``image`` or ``restart``, and there are several, they come last in
    the rows.

    Args:
        cells: the sweep's jobs.
        stem: the files' path without a suffix.
        rows: keys of the rows.
        columns: keys of the columns.
        photo: whether the photos are shown.
        value: a column of ``metrics.csv`` that stands below each picture: ``error`` and ``root_error`` in per cent.
        wrap: at most so many pictures in a line, the photo included; a longer row goes on below.
        box: whether the receptive field of ``objective.region`` is drawn.
        labels: key → its values' names, or a format such as ``λ = {}``.
    """
    rows, columns = _listed(rows), _listed(columns)
    several = {"image": any(len(c.images) > 1 for c in cells), "restart": any(c.restarts > 1 for c in cells)}
    rows += [key for key, many in several.items() if many and key not in rows + columns]
    labels = {"restart": "", "image": "", **(labels or {})}
    tiles: dict[tuple[Label, Label], _Tile] = {}
    photos: dict[str, Path] = {}
    for cell in cells:
        done = cell.rows()
        for image in cell.images:
            if cell.results is not None and cell.results.photo(image).exists():
                photos.setdefault(image, cell.results.photo(image))
            for restart in range(cell.restarts):
                known = {**cell.values, "image": image, "restart": restart}
                key = _label(known, rows), _label(known, columns)
                if (row := done.get((image, restart))) is not None:
                    below = "" if value is None or math.isnan(row.get(value, math.nan)) else _short(value, row[value])
                    tiles[key] = _Tile(cell.results.picture(image, restart), below=below)
                    if box and image in photos:
                        tiles[key].boxes = _boxes(cell.results, photos[image])
                elif key not in tiles:
                    tiles[key] = _Tile(None, below=_status([cell], False))
    heads = list(dict.fromkeys(column for _, column in tiles))
    lines: list[list[_Tile | None]] = []
    sides: list[str] = []
    if photo and photos and "image" in columns:
        at = columns.index("image")
        lines.append([_Tile(photos.get(head[at])) for head in heads])
        sides.append("photo")
    for row in dict.fromkeys(row for row, _ in tiles):
        line = [tiles.get((row, head)) for head in heads]
        for tile, head in zip(line, heads, strict=True):
            if tile is not None and (not lines or wrap):
                tile.above = _named(columns, head, labels)
        if photo and photos and "image" not in columns:
            image = row[rows.index("image")] if "image" in rows else next(iter(photos))
            line.insert(0, _Tile(photos.get(image), above="photo" if not lines or wrap else ""))
        parts = [line[k : k + wrap] for k in range(0, len(line), wrap)] if wrap else [line]
        lines += parts
        sides += [_named(rows, row, labels), *[""] * (len(parts) - 1)]
    return _draw(lines, sides, stem)


def photos(cells: Sequence[Cell], stem: Path, *, wrap: int = 5) -> list[Path]:
    """Draw the photos as Φ sees them, so many in a line, as PNG and PDF; of a job with ``dry_run=true`` too.

    Args:
        cells: the sweep's jobs, of which the first one's photos count.
        stem: the files' path without a suffix.
        wrap: photos in a line.
    """
    found = [_Tile(cells[0].results.photo(image)) for image in cells[0].images if cells[0].results is not None]
    lines = [found[k : k + wrap] for k in range(0, len(found), wrap)]
    return _draw(lines, [""] * len(lines), stem) if found else []


def _boxes(results: Results, photo: Path) -> list[tuple[int, int, int, int]]:
    """Return what the region that a job matches sees of a photo."""
    config = OmegaConf.load(results.config)
    job, _ = assemble(config, Console(quiet=True), [])
    return boxes(job, read(photo, color=job.config.data.color))


def _short(name: str, value: float) -> str:
    return f"{100 * value:.3g} %" if name in ("error", "root_error", "pairwise_error") else f"{value:.3g}"


def _draw(lines: Sequence[Sequence[_Tile | None]], sides: Sequence[str], stem: Path) -> list[Path]:
    """Draw lines of tiles, all of one width, with what stands beside each line."""
    opened = {tile.path: Image.open(tile.path) for line in lines for tile in line if tile and tile.path}
    usual = next((p.height / p.width for p in opened.values()), 1.0)
    count = max(map(len, lines))
    width, gap, text = (1.6 if count <= 6 else 1.1), 0.05, 0.13  # inches
    left = 0.2 if any(sides) else gap
    heights = []
    for line in lines:
        shapes = [opened[t.path].height / opened[t.path].width for t in line if t and t.path]
        above, below = (max((_lines(getattr(t, at)) for t in line if t), default=0) for at in ("above", "below"))
        heights.append((width * max(shapes, default=usual), text * above, text * below))
    size = (left + count * (width + gap), gap + sum(sum(height) + gap for height in heights))
    figure = Figure(figsize=size, dpi=DPI)
    FigureCanvasAgg(figure)
    y = gap
    for line, side, (height, above, below) in zip(lines, sides, heights, strict=True):
        y += above
        small = {"fontsize": 6, "ha": "center", "linespacing": 1.0}
        if side:
            middle = 1 - (y + height / 2) / size[1]
            figure.text(0.6 * left / size[0], middle, side, rotation=90, **small, va="center")
        for k, tile in enumerate(line):
            if tile is None:
                continue
            x = left + k * (width + gap)
            picture = opened.get(tile.path)
            own = height if picture is None else width * picture.height / picture.width
            axes = figure.add_axes((x / size[0], 1 - (y + own) / size[1], width / size[0], own / size[1]))
            axes.set_axis_off()
            centre = (x + width / 2) / size[0]
            figure.text(centre, 1 - (y - 0.02) / size[1], tile.above, **small, va="bottom")
            if picture is None:
                axes.add_patch(Rectangle((0, 0), 1, 1, color="0.9"))
                axes.text(0.5, 0.5, tile.below or "missing", color="0.3", **small, va="center")
                continue
            axes.imshow(picture.convert("RGB"), interpolation="none", aspect="auto")
            for box_top, box_left, bottom, right in tile.boxes:
                corner = (box_left - 0.5, box_top - 0.5)
                frame = Rectangle(corner, right - box_left, bottom - box_top, fill=False, color="red", linewidth=0.8)
                axes.add_patch(frame)
                axes.set_xlim(-0.5, picture.width - 0.5)
                axes.set_ylim(picture.height - 0.5, -0.5)
            figure.text(centre, 1 - (y + own + 0.02) / size[1], tile.below, **small, va="top", color="0.3")
        y += height + below + gap
    return _save(stem, _figure_files(figure))


def _lines(text: str) -> int:
    return text.count("\n") + 1 if text else 0


# --- plots -----------------------------------------------------------------------------------------------------------


def plot(
    cells: Sequence[Cell],
    stem: Path,
    *,
    x: str,
    values: Mapping[str, str],
    lines: Keys = (),
    spread: str = "sem",
    labels: Labels | None = None,
) -> list[Path]:
    """Plot means over photos against a key, one panel for each value, as PNG and PDF; the numbers as CSV.

    Args:
        cells: the sweep's jobs.
        stem: the files' path without a suffix.
        x: the key along the horizontal axis, in the order of the sweep.
        values: what is plotted, see :meth:`Cell.numbers`, → the vertical axis's name.
        lines: keys whose values have a line each.
        spread: what the bars are: ``std`` or ``sem``, 1.96 standard errors of the mean.
        labels: key → its values' names, or a format such as ``λ = {}``.
    """
    choice("spread", spread, ("std", "sem"))
    lines, labels = _listed(lines), labels or {}
    places = list(dict.fromkeys(_label(cell.values, [x]) for cell in cells))
    figure = Figure(figsize=(max(3.2, 0.3 * len(places) + 1), 2.2 * len(values)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(values), 1, sharex=True, squeeze=False)[:, 0]
    table_lines = []
    for panel, (value, name) in zip(panels, values.items(), strict=True):
        for key in dict.fromkeys(_label(cell.values, lines) for cell in cells):
            points = []
            for cell in cells:
                if _label(cell.values, lines) == key:
                    numbers = cell.numbers(value)
                    middle, around = mean(numbers) if numbers else math.nan, _spread(numbers, spread)
                    points.append((places.index(_label(cell.values, [x])), middle, around))
                    ends = ["" if math.isnan(number) else f"{number:.6g}" for number in (middle, around)]
                    table_lines.append([value, cell.values[x], *key, *ends, len(numbers), cell.status])
            across, up, bars = zip(*points, strict=True)
            bars = [0 if math.isnan(bar) else bar for bar in bars]
            label = _named(lines, key, labels) or None
            panel.errorbar(across, up, yerr=bars, marker="o", markersize=3, linewidth=1, capsize=2, label=label)
        panel.set_ylabel(name, fontsize=7)
        panel.set_ylim(bottom=0)
        panel.tick_params(labelsize=6)
        panel.grid(alpha=0.3)
        if lines:
            panel.legend(fontsize=6)
    panels[-1].set_xticks(range(len(places)), [_named([x], place, labels) for place in places], rotation=60)
    header = ["value", x, *lines, "mean", "std" if spread == "std" else "1.96 sem", "n", "status"]
    files = _figure_files(figure)
    return _save(stem, {**files, ".csv": lambda path: _write_csv(path, header, table_lines)})


# --- what all share ----------------------------------------------------------------------------------------------------


def _listed(keys: Keys) -> list[str]:
    return [keys] if isinstance(keys, str) else list(keys)


def _label(values: Mapping[str, Any], keys: Sequence[str]) -> Label:
    """Return what the keys are in a job.

    Raises:
        InvrepError: there is no such key.
    """
    for key in keys:
        if key not in values:
            raise InvrepError(f"A layout arranges by {key!r}, which is no key of the config; {nearest(key, values)}.")
    return tuple(str(v) if isinstance(v := values[key], list | dict) else v for key in keys)


def _named(keys: Sequence[str], label: Label, labels: Labels) -> str:
    """Return what is printed for the keys' values."""
    words = []
    for key, value in zip(keys, label, strict=True):
        names = labels.get(key, "{}")
        words.append(names.format(value) if isinstance(names, str) else names.get(value, names.get(str(value), value)))
    return " ".join(str(word) for word in words if word != "")


def _figure_files(figure: Figure) -> dict[str, Callable[[Path], Any]]:
    return {
        ".png": lambda path: figure.savefig(path, format="png", facecolor="white"),
        # without the time, so that the same results give the same file
        ".pdf": lambda path: figure.savefig(path, format="pdf", facecolor="white", metadata={"CreationDate": None}),
    }


def _save(stem: Path, files: Mapping[str, Callable[[Path], Any]]) -> list[Path]:
    paths = []
    for suffix, write in files.items():
        path = stem.with_name(stem.name + suffix)
        _atomic(path, write)
        paths.append(path)
    return paths
