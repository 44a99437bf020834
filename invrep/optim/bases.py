"""Represent images by pixels, or by coefficients of a cosine transform scaled by frequency."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

# A square root of the covariance of R, G and B in ImageNet's photos, divided by its columns' largest norm. Source:
# Lucid (Olah, Mordvintsev, Schubert: Feature Visualization, Distill 2017).
COLOUR = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


@lru_cache(maxsize=16)
def cosines(n: int) -> Tensor:
    """Return the orthonormal DCT-II of n values as a matrix (n, n), float64: coefficients = matrix @ values."""
    place = (torch.arange(n, dtype=torch.float64) + 0.5) * math.pi / n
    matrix = torch.cos(torch.arange(n, dtype=torch.float64)[:, None] * place) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def frequencies(height: int, width: int) -> Tensor:
    """Return each coefficient's spatial frequency in cycles per pixel, (H, W); at least 1/max(H, W)."""
    u, v = (
        torch.arange(height, dtype=torch.float64) / (2 * height),
        torch.arange(width, dtype=torch.float64) / (2 * width),
    )
    return torch.sqrt(u[:, None] ** 2 + v[None] ** 2).clamp(min=1 / max(height, width))


class PixelBasis:
    """Hold the image itself in the image tensor."""

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """Return the image of the tensor. Shape: (B, C, H, W) both."""
        return coefficients

    analyse = synthesise

    def to(self, device: torch.device, dtype: torch.dtype) -> PixelBasis:
        """Return this basis on another device or in another precision."""
        return self


class FourierBasis:
    """Hold z in the image tensor: the image is x = DCT⁻¹(z / f^s), where f is each coefficient's spatial frequency.

    Photos have amplitudes near 1/f. With s = 1 all coefficients of z have one size, total variation weighs them alike,
    and equal steps in z change coarse and fine structure in natural proportion. A steeper slope moves coarse structure
    faster. The scale has a root mean square of 1. The cosine transform continues the image by mirroring, so opposite
    edges are not coupled.

    Args:
        shape: (C, H, W) of an image.
        decorrelate: how far z holds RGB decorrelated by the natural colour covariance, from 0, plain RGB, to 1. Between
            them, steps along the covariance's axes have the axes' lengths to this power: 1, .72 and .60 at a quarter
            keep reds and greens that whole decorrelation all but leaves grey. Images without three channels ignore it.
        slope: exponent s.
    """

    def __init__(self, shape: tuple[int, int, int], *, decorrelate: float = 0.0, slope: float = 1.0) -> None:
        channels, height, width = shape
        self.rows, self.columns = cosines(height), cosines(width)
        scale = frequencies(height, width) ** -slope
        self.scale = scale / scale.square().mean().sqrt()
        self.colour: Tensor | None = None
        if decorrelate and channels == 3:
            colour = torch.tensor(COLOUR, dtype=torch.float64)
            lengths = colour.norm(dim=0)
            self.colour = colour / lengths * (lengths / lengths.max()) ** decorrelate

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """Return the image of the tensor. Shape: (B, C, H, W) both."""
        # Each channel of each image has a product of its own, so no result depends on the batch.
        image = self.rows.mT @ ((coefficients * self.scale) @ self.columns)
        return image if self.colour is None else (self.colour @ image.flatten(2)).view_as(image)

    def analyse(self, image: Tensor) -> Tensor:
        """Return the tensor of an image. Shape: (B, C, H, W) both."""
        if self.colour is not None:
            image = (torch.linalg.inv(self.colour.double()).to(image) @ image.flatten(2)).view_as(image)
        return (self.rows @ (image @ self.columns.mT)) / self.scale

    def to(self, device: torch.device, dtype: torch.dtype) -> FourierBasis:
        """Return this basis on another device or in another precision."""
        other = object.__new__(FourierBasis)
        for name, value in vars(self).items():
            setattr(other, name, value if value is None else value.to(device, dtype))
        return other
