"""Describe input sizes, and the position of a code's entries in the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class InputSize:
    """Hold a model's published input size: resize the shorter side to ``resize``, then crop the centre.

    Attributes:
        crop: height and width in pixels of the model's input.
        resize: shorter side in pixels before the crop, or a height and width.
        interpolation: name of a :class:`torchvision.transforms.InterpolationMode`.
    """

    crop: tuple[int, int]
    resize: int | tuple[int, int]
    interpolation: str = "bilinear"


class Geometry(NamedTuple):
    """Describe the image area that the positions of a value see; all pairs are (height, width) in pixels.

    Attributes:
        field: sides of the receptive field; infinite where it is, or may be, the whole image.
        stride: distance to the next position; None without positions.
        start: upper left corner of the receptive field of position (0, 0); negative within padding.
    """

    field: tuple[float, float]
    stride: tuple[int, int] | None
    start: tuple[int, int] = (0, 0)

    def box(self, rows: slice, columns: slice) -> tuple[int, int, int, int] | None:
        """Return top, left, bottom, right of the area that some positions see, in pixels; None for the whole image."""
        if self.stride is None or math.inf in self.field:
            return None
        (top, bottom), (left, right) = (
            (begin + first.start * step, begin + (first.stop - 1) * step + int(side))
            for begin, step, side, first in zip(self.start, self.stride, self.field, (rows, columns), strict=True)
        )
        return top, left, bottom, right
