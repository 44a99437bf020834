"""Sizes of inputs, and where the positions of a code lie in the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class InputSize:
    """The size a model was published with: resize the shorter side to ``resize``, then crop the centre.

    Attributes:
        crop: height and width in pixels of the model's input.
        resize: the shorter side in pixels before the crop, or a height and width.
        interpolation: a name of :class:`torchvision.transforms.InterpolationMode`.
    """

    crop: tuple[int, int]
    resize: int | tuple[int, int]
    interpolation: str = "bilinear"


class Geometry(NamedTuple):
    """What the positions of a value see, all (height, width) in pixels.

    Attributes:
        field: sides of the receptive field; infinite where it is, or may be, the whole image.
        stride: distance to the next position; None where there are no positions.
        start: upper left corner of the receptive field of position (0, 0); negative within padding.
    """

    field: tuple[float, float]
    stride: tuple[int, int] | None
    start: tuple[int, int] = (0, 0)

    def box(self, rows: slice, columns: slice) -> tuple[int, int, int, int] | None:
        """Return top, left, bottom, right of what a rectangle of positions sees, in pixels; None: the whole image."""
        if self.stride is None or math.inf in self.field:
            return None
        (top, bottom), (left, right) = (
            (begin + first.start * step, begin + (first.stop - 1) * step + int(side))
            for begin, step, side, first in zip(self.start, self.stride, self.field, (rows, columns), strict=True)
        )
        return top, left, bottom, right
