"""Draw figures of pre-images and photos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from invrep.objectives.code_selection import Box, boxes_in, inside
from invrep.reporting.layouts.cells import (
    DPI,
    Cell,
    Keys,
    Label,
    Labels,
    figure_files,
    label_of,
    listed,
    named,
    save,
    status_of,
)


@dataclass
class _Tile:
    """Hold a picture with its captions.

    Attributes:
        path: path of the picture; None for a missing one.
        above: text above the picture.
        below: text below the picture, or the reason why it is missing.
        boxes: boxes (top, left, bottom, right) in pixels, drawn in red.
    """

    path: Path | None
    above: str = ""
    below: str = ""
    boxes: Sequence[Box] = ()


def grid(
    cells: Sequence[Cell],
    stem: Path,
    *,
    rows: Keys = "image",
    columns: Keys,
    photo: bool = True,
    value: str | None = None,
    wrap: int | None = None,
    width: float | None = None,
    labels: Labels | None = None,
) -> list[Path]:
    """Draw pre-images as PNG (300 dpi) and PDF, with the photos before or above them.

    A missing pre-image is marked with its reason. A red box is the receptive field of ``objective.region``. Several
    images or restarts whose key is in neither ``rows`` nor ``columns`` are added to the end of ``rows``.

    Args:
        cells: jobs of the sweep.
        stem: path of the files without a suffix.
        rows: keys of the rows.
        columns: keys of the columns.
        photo: bool; True shows the photos.
        value: column of ``metrics.csv`` below each picture, errors in percent; None: no number.
        wrap: most pictures in a line, the photo included; a longer row continues below. None: no limit.
        width: width of a picture in inches; None: 1.6, and 1.1 in lines of more than six.
        labels: for each key the names of its values, or a format such as ``λ = {}``.

    Returns:
        Paths of the files.

    Raises:
        InvrepError: a key does not exist, or a file cannot be written.
    """
    rows, columns = listed(rows), listed(columns)
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
                key = label_of(known, rows), label_of(known, columns)
                if cell.results is not None and (found := done.get((image, restart))) is not None:
                    number = math.nan if value is None else found.get(value, math.nan)
                    below = "" if value is None or math.isnan(number) else _short(value, number)
                    tiles[key] = _Tile(cell.results.picture(image, restart), below=below, boxes=boxes_in(found))
                elif key not in tiles:
                    tiles[key] = _Tile(None, below=status_of([cell], False))
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
                tile.above = named(columns, head, labels)
        if photo and photos and "image" not in columns:
            image = row[rows.index("image")] if "image" in rows else next(iter(photos))
            line.insert(0, _Tile(photos.get(image), above="photo" if not lines or wrap else ""))
        parts = [line[k : k + wrap] for k in range(0, len(line), wrap)] if wrap else [line]
        lines += parts
        sides += [named(rows, row, labels), *[""] * (len(parts) - 1)]
    return save(stem, figure_files(_draw(lines, sides, width), cells))


def photos(cells: Sequence[Cell], stem: Path, *, wrap: int = 5) -> list[Path]:
    """Draw the photos as Φ sees them, as PNG (300 dpi) and PDF.

    Args:
        cells: jobs of the sweep; the photos are those of the first job.
        stem: path of the files without a suffix.
        wrap: number of photos in a line.

    Returns:
        Paths of the files; an empty list without results.

    Raises:
        InvrepError: a file cannot be written.
    """
    found = [_Tile(cells[0].results.photo(image)) for image in cells[0].images if cells[0].results is not None]
    lines = [found[k : k + wrap] for k in range(0, len(found), wrap)]
    return save(stem, figure_files(_draw(lines, [""] * len(lines)), cells)) if found else []


def _short(name: str, value: float) -> str:
    return f"{100 * value:.3g} %" if name in ("error", "root_error", "pairwise_error") else f"{value:.3g}"


def _draw(lines: Sequence[Sequence[_Tile | None]], sides: Sequence[str], width: float | None = None) -> Figure:
    """Draw lines of tiles of one width, with a text beside each line.

    Args:
        lines: tiles of each line; None leaves a gap.
        sides: text beside each line.
        width: width of a tile in inches; None: by the number of tiles.
    """
    opened = {tile.path: Image.open(tile.path) for line in lines for tile in line if tile and tile.path}
    usual = next((p.height / p.width for p in opened.values()), 1.0)
    count = max(map(len, lines))
    width, gap, text = width or (1.6 if count <= 6 else 1.1), 0.05, 0.13  # in inches
    left = 0.2 if any(sides) else gap
    heights: list[tuple[float, float, float]] = []
    for line in lines:
        shapes = [opened[t.path].height / opened[t.path].width for t in line if t and t.path]
        over, under = (max((_lines(getattr(t, at)) for t in line if t), default=0) for at in ("above", "below"))
        heights.append((width * max(shapes, default=usual), text * over, text * under))
    size = (left + count * (width + gap), gap + sum(sum(height) + gap for height in heights))
    figure = Figure(figsize=size, dpi=DPI)
    FigureCanvasAgg(figure)
    y = gap
    for line, side, (height, above, below) in zip(lines, sides, heights, strict=True):
        y += above
        small: dict[str, Any] = {"fontsize": 6, "ha": "center", "linespacing": 1.0}
        if side:
            middle = 1 - (y + height / 2) / size[1]
            figure.text(0.6 * left / size[0], middle, side, rotation=90, **small, va="center")
        for k, tile in enumerate(line):
            if tile is None:
                continue
            x = left + k * (width + gap)
            picture = None if tile.path is None else opened.get(tile.path)
            own = height if picture is None else width * picture.height / picture.width
            axes = figure.add_axes((x / size[0], 1 - (y + own) / size[1], width / size[0], own / size[1]))
            axes.set_axis_off()
            centre = (x + width / 2) / size[0]
            figure.text(centre, 1 - (y - 0.02) / size[1], tile.above, **small, va="bottom")
            if picture is None:
                axes.add_patch(Rectangle((0, 0), 1, 1, color="0.9"))
                axes.text(0.5, 0.5, tile.below or "missing", color="0.3", **small, va="center")
                continue
            smooth = "antialiased" if picture.width > DPI * width else "none"
            axes.imshow(picture.convert("RGB"), interpolation=smooth, aspect="auto")
            for box_top, box_left, bottom, right in (inside(b, picture.height, picture.width) for b in tile.boxes):
                corner = (box_left - 0.5, box_top - 0.5)
                frame = Rectangle(corner, right - box_left, bottom - box_top, fill=False, color="red", linewidth=0.8)
                axes.add_patch(frame)
                axes.set_xlim(-0.5, picture.width - 0.5)
                axes.set_ylim(picture.height - 0.5, -0.5)
            figure.text(centre, 1 - (y + own + 0.02) / size[1], tile.below, **small, va="top", color="0.3")
        y += height + below + gap
    return figure


def _lines(text: str) -> int:
    return text.count("\n") + 1 if text else 0
