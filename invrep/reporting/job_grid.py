"""Draw the picture of a job, ready for a paper: photos beside their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from invrep.data.display import shown
from invrep.objectives.code_selection import Box, inside

MOST_ROWS, MOST_COLUMNS = 16, 8
DPI = 300
MARK = "shows"  # key of the PNG text with the mark of :func:`grid`


@dataclass(frozen=True)
class GridRow:
    """Hold a row of the picture: an optional photo and its pre-images.

    Attributes:
        photo: photo (C, H, W) in [0, 1]; None in every row of a picture without photos.
        reconstructions: pre-images, each (C, H, W); 0 to 1 is black to white, unclipped.
        captions: text under each reconstruction.
        boxes: boxes (top, left, bottom, right) in pixels, drawn on photo and reconstructions.
    """

    photo: Tensor | None
    reconstructions: Sequence[Tensor]
    captions: Sequence[str]
    boxes: Sequence[Box] = ()


def grid(rows: Sequence[GridRow], *, title: str, display: str, mark: str, path: Path) -> None:
    """Save the picture that :func:`drawn` draws as PNG at 300 dpi.

    Args:
        rows: rows of the picture, one for each photo.
        title: heading of the first column of reconstructions, such as ``vgg16 relu5``.
        display: ``rescale`` or ``clip``, see :func:`invrep.data.display.shown`, for photos too.
        mark: text that is stored in the file and identifies its content, see :func:`marked`.
        path: path of the PNG file.
    """
    figure = Figure(dpi=DPI)
    FigureCanvasAgg(figure)
    drawn(rows, title=title, display=display, figure=figure)
    figure.savefig(path, format="png", facecolor="white", metadata={MARK: mark})


def drawn(rows: Sequence[GridRow], *, title: str, display: str, figure: Figure) -> Figure:
    """Draw at most 16 photos, a row each, with at most 7 pre-images each, and return the figure.

    Without photos, the pre-images start in the first column.

    Args:
        rows: rows of the picture, one for each photo.
        title: heading of the first column of reconstructions, such as ``vgg16 relu5``.
        display: ``rescale`` or ``clip``, see :func:`invrep.data.display.shown`, for photos too.
        figure: empty figure; its size is set.
    """
    rows = rows[:MOST_ROWS]
    before = int(rows[0].photo is not None)  # columns before the first pre-image
    columns = before + min(max(len(row.reconstructions) for row in rows), MOST_COLUMNS - 1)
    width = 2.0 if columns <= 4 else 1.4  # width of a tile in inches
    heights = [width * row.reconstructions[0].shape[1] / row.reconstructions[0].shape[2] for row in rows]
    caption, heading, gap = 0.2, 0.24, 0.06
    total = (columns * (width + gap) + gap, sum(heights) + len(rows) * (caption + gap) + heading)
    figure.set_size_inches(*total)
    top = heading
    for row, height in zip(rows, heights, strict=True):
        pictures = [] if row.photo is None else [shown(row.photo, display)]
        pictures = [*pictures, *(shown(image, display) for image in row.reconstructions)][:columns]
        for k, picture in enumerate(pictures):
            left = gap + k * (width + gap)
            bounds = (left / total[0], 1 - (top + height) / total[1], width / total[0], height / total[1])
            axes = figure.add_axes(bounds)
            axes.imshow(picture.permute(1, 2, 0).expand(-1, -1, 3).numpy(), interpolation="none", aspect="auto")
            for top_, left_, bottom, right in (inside(box, *picture.shape[1:]) for box in row.boxes):
                corner = (left_ - 0.5, top_ - 0.5)
                axes.add_patch(Rectangle(corner, right - left_, bottom - top_, fill=False, color="red", linewidth=1))
            axes.set_xlim(-0.5, picture.shape[2] - 0.5)
            axes.set_ylim(picture.shape[1] - 0.5, -0.5)
            axes.set_axis_off()
            middle = (left + width / 2) / total[0]
            if top == heading:
                name = "photo" if k < before else title if k == before else f"restart {k - before}"
                figure.text(middle, 1 - 0.5 * heading / total[1], name, ha="center", va="center", fontsize=8)
            if k >= before:
                below = 1 - (top + height + 0.5 * caption) / total[1]
                figure.text(middle, below, row.captions[k - before], ha="center", va="center", fontsize=7, color="0.3")
        top += height + caption + gap
    return figure


def marked(path: Path) -> str | None:
    """Return the ``mark`` that is stored in a picture; None if the file is missing, damaged or without a mark."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.info.get(MARK)
    except (OSError, SyntaxError, ValueError):
        return None
