"""Draw a batch of a running descent: a row for each photo, with its pre-images beside it, captioned by their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from invrep.data.display import shown, to_pil
from invrep.inversion.module import Inversion
from invrep.messages import printable
from invrep.tracking.progress import worded

PHOTOS, RESTARTS = 8, 4  # most photos, and most pre-images of each
LEAST, MOST = 112, 256  # pixels; width of a tile
GAP, LINE, SIZE = 4, 15, 11  # pixels; between tiles, height of a caption's line, and of its letters


class Picture(NamedTuple):
    """Hold a picture for a logger, and its caption in words."""

    image: Image.Image
    caption: str


class Shot(NamedTuple):
    """Hold what is visible of a batch at a pass.

    Attributes:
        passes: number of passes of the batch.
        images: pre-images (n, C, H, W) of the visible rows, on the CPU.
        values: values of the whole batch at an earlier pass, {name: (B,)}; empty before the first pass.
    """

    passes: int
    images: Tensor
    values: Mapping[str, Tensor]


@dataclass(frozen=True)
class Visible:
    """Choose the visible rows of a batch, and draw them.

    Attributes:
        rows: triple for each row of the batch: index of the photo, id, number of the restart.
        photos: photos (n, C, H, W) in [0, 1]; None without photos.
        title: name of representation and layer.
        display: ``rescale`` or ``clip`` for photos and pre-images, see :func:`invrep.data.display.shown`.
    """

    rows: Sequence[tuple[int, str, int]]
    photos: Tensor | None
    title: str
    display: str

    def chosen(self) -> dict[int, list[int]]:
        """Return the visible rows of the batch, by index of their photo."""
        found: dict[int, list[int]] = {}
        for row, (photo, _, _) in enumerate(self.rows):
            if len(found) < PHOTOS or photo in found:
                found.setdefault(photo, []).append(row)
        return {photo: rows[:RESTARTS] for photo, rows in found.items()}

    def shot(self, inversion: Inversion) -> Shot:
        """Return what is visible of the batch now."""
        rows = [row for some in self.chosen().values() for row in some]
        images = inversion.reconstruction().detach()[rows].cpu()
        return Shot(inversion.passes, images, inversion.latest)

    def draw(self, shot: Shot, inversion: Inversion, values: Mapping[str, Tensor] | None = None) -> Picture:
        """Return the picture of a shot.

        Args:
            shot: what is visible.
            inversion: inversion of the batch, for the number of passes and for images without an error.
            values: values of the whole batch at the shot's pass, {name: (B,)}; None: the shot's own.
        """
        images, shows = iter(shot.images), inversion.objective.shows
        measured = (shot.values if values is None else values).get(shows)
        bare = inversion.bare.tolist()
        lines, said = [], []
        for photo, rows in self.chosen().items():
            name = printable(self.rows[rows[0]][1])
            line = [] if self.photos is None else [(self.photos[photo], name)]
            told = []
            for row in rows:
                number = "" if measured is None else worded(shows, float(measured[row]))
                told.append("none" if bare[row] else number)
                line.append((next(images), f"restart {self.rows[row][2]}: {told[-1]}".removesuffix(": ")))
            lines.append(line)
            said.append(f"{name}: {shows} {', '.join(told)}" if measured is not None else name)
        at = f"pass {shot.passes} of {inversion.whole}" if shot.passes else "start"
        return Picture(self._drawn(lines), f"{self.title}, {at} | {' | '.join(said)}")

    def _drawn(self, lines: Sequence[Sequence[tuple[Tensor, str]]]) -> Image.Image:
        tiles = [[(_tile(shown(image, self.display)), text) for image, text in line] for line in lines]
        width, height = (max(tile.size[side] for line in tiles for tile, _ in line) for side in (0, 1))
        columns, font = max(map(len, tiles)), ImageFont.load_default(SIZE)
        mode = "L" if all(tile.mode == "L" for line in tiles for tile, _ in line) else "RGB"
        whole = Image.new(mode, (columns * (width + GAP) + GAP, len(tiles) * (height + LINE + GAP) + GAP), "white")
        pen = ImageDraw.Draw(whole)
        for row, line in enumerate(tiles):
            for column, (tile, text) in enumerate(line):
                left, top = GAP + column * (width + GAP), GAP + row * (height + LINE + GAP)
                whole.paste(tile, (left, top))
                pen.text((left, top + height), _cut(text, width, font), fill="#404040", font=font)
        return whole


def _tile(image: Tensor) -> Image.Image:
    """Return an image (C, H, W) in [0, 1] as a tile, enlarged or reduced to a width at which a caption fits."""
    tile = to_pil(image)
    scale = min(max(tile.width, LEAST), MOST) / tile.width
    if scale == 1:
        return tile
    size = (round(tile.width * scale), max(round(tile.height * scale), 1))
    return tile.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return a text, shortened in the middle so that it is at most so many pixels wide."""
    if font.getlength(text) <= width:
        return text
    kept = next((n for n in range(len(text) // 2, 0, -1) if font.getlength(f"{text[:n]}…{text[-n:]}") <= width), 1)
    return f"{text[:kept]}…{text[-kept:]}"
