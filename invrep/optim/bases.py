"""What the image tensor holds: pixels, or the coefficients of a cosine transform scaled by frequency."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

# A square root of the covariance of R, G and B in ImageNet's photos, divided by the greatest norm of its columns; as
# published with Lucid (Olah, Mordvintsev, Schubert: Feature Visualization, Distill 2017).
COLOUR = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


@lru_cache(maxsize=16)
def cosines(n: int) -> Tensor:
    """Return the orthonormal DCT-II of n values as a matrix (n, n), float64: coefficients = matrix @ values."""
    place = (torch.arange(n, dtype=torch.float64) + 0.5) * math.pi / n
    matrix = torch.cos(torch.arange(n, dtype=torch.float64)[:, None] * place) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def frequencies(height: int, width: int) -> Tensor:
    """Return the spatial frequency of each coefficient, (H, W), in cycles per pixel and at least that of one cycle."""
    u, v = (
        torch.arange(height, dtype=torch.float64) / (2 * height),
        torch.arange(width, dtype=torch.float64) / (2 * width),
    )
    return torch.sqrt(u[:, None] ** 2 + v[None] ** 2).clamp(min=1 / max(height, width))


class PixelBasis:
    """The image tensor holds the image itself."""

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """Return the image that the tensor stands for. Shape: (B, C, H, W) both."""
        return coefficients

    analyse = synthesise

    def to(self, device: torch.device, dtype: torch.dtype) -> PixelBasis:
        """Return the same on another device or in another precision."""
        return self


class FourierBasis:
    """The image tensor holds z, and the image is x = DCT⁻¹(z / f), f the spatial frequency of each coefficient.

    Photographs have amplitudes near 1/f, so that all coefficients of z are of one size, and total variation weighs
    them alike: a step of one size for all of them changes coarse and fine structure in natural proportion. The scale
    has a root mean square of 1. The cosine transform takes the image to go on mirrored, so that nothing couples its
    opposite edges.

    Args:
        shape: (C, H, W) of an image.
        decorrelate: whether the channels of z are also those of the natural colour covariance; only for RGB.
    """

    def __init__(self, shape: tuple[int, int, int], *, decorrelate: bool = False) -> None:
        channels, height, width = shape
        self.rows, self.columns = cosines(height), cosines(width)
        scale = 1 / frequencies(height, width)
        self.scale = scale / scale.square().mean().sqrt()
        self.colour: Tensor | None = None
        if decorrelate and channels == 3:
            colour = torch.tensor(COLOUR, dtype=torch.float64)
            self.colour = colour / colour.norm(dim=0).max()

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """Return the image that the tensor stands for. Shape: (B, C, H, W) both."""
        # one product for each channel of each image, all of one shape, so that none depends on its neighbours
        image = self.rows.mT @ ((coefficients * self.scale) @ self.columns)
        return image if self.colour is None else (self.colour @ image.flatten(2)).view_as(image)

    def analyse(self, image: Tensor) -> Tensor:
        """Return the tensor that stands for an image. Shape: (B, C, H, W) both."""
        if self.colour is not None:
            image = (torch.linalg.inv(self.colour.double()).to(image) @ image.flatten(2)).view_as(image)
        return (self.rows @ (image @ self.columns.mT)) / self.scale

    def to(self, device: torch.device, dtype: torch.dtype) -> FourierBasis:
        """Return the same on another device or in another precision."""
        other = object.__new__(FourierBasis)
        for name, value in vars(self).items():
            setattr(other, name, value if value is None else value.to(device, dtype))
        return other
