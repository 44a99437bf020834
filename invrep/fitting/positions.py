"""Find the regular grid of a code's positions, and where they lie in the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from invrep.representations.base import Representation


class Grid(NamedTuple):
    """Hold a code of channels on one regular grid of positions.

    Attributes:
        values: code, (B, D, rows, columns).
        stride: distance of neighbouring positions in pixels.
        centre: centre of what position (0, 0) sees, in either direction, in pixels from the image's edge.
    """

    values: Float[Tensor, "batch channel row column"]
    stride: int
    centre: float


def grid_of(phi: Representation, code: Sequence[Tensor], size: Sequence[int]) -> Grid | None:
    """Return the grid of a code; None for a code of several parts, or without a regular grid of local positions.

    Args:
        phi: representation Φ.
        code: code, a list of (B, …).
        size: height and width of the images in pixels.
    """
    if len(code) != 1 or code[0].ndim != 4 or (phi.channel_axes or (1,))[0] not in (None, 1):
        return None
    (place,) = phi.geometry(*size)
    if place.stride is None or math.inf in place.field:
        return None
    strides, centres = (
        set(place.stride),
        {start + side / 2 for start, side in zip(place.start, place.field, strict=True)},
    )
    if len(strides) > 1 or len(centres) > 1 or not float(stride := strides.pop()).is_integer():
        return None
    return Grid(code[0], int(stride), centres.pop())
