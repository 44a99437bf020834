"""Show a result in a notebook, as HTML that needs neither style sheet, script nor network."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from invrep.data.display import shown, to_pil
from invrep.messages import count

if TYPE_CHECKING:
    from invrep.api.inverted import Inverted

MOST_IMAGES, MOST_RESTARTS = 6, 5
WIDE, NARROW = 260, 180  # CSS pixels of a tile, with at most 3 columns and with more
SMALL = 96  # pixels; a smaller picture is stored without loss and shown with sharp pixels
# No colour is set: text has that of the notebook, light or dark. Notebooks drop style sheets, but not styles.
GRID = "display:grid;grid-template-columns:repeat({},minmax(0,{}px));gap:10px;align-items:start"
CAPTION = "font-size:12px;line-height:1.4;overflow-wrap:anywhere"


def grid(found: Inverted) -> str:
    """Return the first images beside their pre-images with errors: at most 6 images, and 5 restarts of each.

    Pictures have at most twice the pixels of their tiles, for screens of high density. So a grid takes about 1 MB at
    most.
    """
    images, restarts = found.reconstructions.shape[:2]
    columns = min(restarts, MOST_RESTARTS) + (found.photos is not None)
    width = WIDE if columns <= 3 else NARROW
    tiles = (tile for image in range(min(images, MOST_IMAGES)) for tile in _row(found, image, width))
    more = [
        *([count(images - MOST_IMAGES, "more image")] if images > MOST_IMAGES else []),
        *([count(restarts - MOST_RESTARTS, "more restart")] if restarts > MOST_RESTARTS else []),
    ]
    rest = f"<div>{' and '.join(more)}: <code>found.plot(images=[…])</code></div>" if more else ""
    return (
        f'<div style="margin:6px 0"><div style="margin-bottom:8px">{escape(repr(found))}</div>'
        f'<div style="{GRID.format(columns, width)}">{"".join(tiles)}</div>{rest}</div>'
    )


def _row(found: Inverted, image: int, width: int) -> Iterator[str]:
    """Yield the photo of an image and its pre-images, for tiles of a width in CSS pixels."""
    name = found.names[image]
    if found.photos is not None:
        yield _tile(found.photos[image], found.display, width, name, name)
    for restart, pixels in enumerate(found.reconstructions[image, :MOST_RESTARTS]):
        what = f"pre-image of {name}, restart {restart}" if found.photos is not None else f"restart {restart}"
        yield _tile(pixels, found.display, width, found.caption(image, restart), what)


def _tile(pixels: Tensor, display: str, width: int, caption: str, what: str) -> str:
    small = max(pixels.shape[1:]) <= SMALL
    look = f"display:block;width:100%;height:auto;{'image-rendering:pixelated' if small else ''}"
    source = _data_uri(pixels, display, 2 * width, small)
    return (
        f'<figure style="margin:0;min-width:0"><img src="{source}" alt="{escape(what)}" style="{look}">'
        f'<figcaption style="{CAPTION}">{escape(caption)}</figcaption></figure>'
    )


def _data_uri(pixels: Tensor, display: str, most: int, lossless: bool) -> str:
    """Return a picture of at most that many pixels a side, as WebP within a URI."""
    picture = to_pil(as_colours(shown(pixels, display)))
    picture.thumbnail((most, most), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=90, lossless=lossless)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def as_colours(pixels: Tensor) -> Tensor:
    """Return an image as grey or RGB, (1, H, W) or (3, H, W); other numbers of channels become their mean."""
    return pixels if len(pixels) in (1, 3) else pixels.mean(0, keepdim=True)
