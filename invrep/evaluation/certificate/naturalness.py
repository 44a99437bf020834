"""Measure how much a pre-image looks like a photo: to a denoiser, and by its gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from invrep.priors.ffdnet import FFDNet
from invrep.representations.base import as_gray

SIGMA = 15.0  # grey levels; the noise that the denoiser is told
BINS, LARGEST = 32, 8.5  # of the histogram, over log2(1 + gradient in grey levels)


class Residual:
    """Compare how far a denoiser moves images and their photo: ‖x̂ − D(x̂)‖ / ‖x − D(x)‖; 1 for the photo itself.

    The denoiser is the package's FFDNet, which is told a noise of 15 grey levels. Noise and patterns that photos lack
    give values above 1, images that are too smooth give values below 1.
    """

    def __init__(self) -> None:
        self._denoiser = FFDNet().eval()

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "batch channel row column"], photo: Float[Tensor, "channel row column"]
    ) -> Float[Tensor, " batch"]:
        """Return the ratio of each image, (B,) float64; the images are clipped to [0, 1]."""
        usual = self._moved(photo[None])
        return torch.cat([self._moved(image[None]) for image in images]) / usual

    def _moved(self, images: Tensor) -> Tensor:
        colour = images.float().cpu().clamp(0, 1).expand(-1, 3, -1, -1)
        moved: Tensor = (colour - self._denoiser(colour, SIGMA / 255)).double()
        return moved.flatten(1).square().sum(1).sqrt()


def gradients(image: Float[Tensor, "channel row column"]) -> Float[Tensor, " bin"]:
    """Return the histogram of an image's gradient magnitudes, which sums to 1.

    Args:
        image: RGB or grey image in [0, 1]; its size is at least 2×2.
    """
    grey = as_gray(image[None])[0, 0] * 255
    size = (grey[:-1, 1:] - grey[:-1, :-1]).square() + (grey[1:, :-1] - grey[:-1, :-1]).square()
    found = torch.histc((1 + size.sqrt()).log2(), BINS, 0, LARGEST)
    return found / found.sum()


def usual_gradients(photos: Iterable[Tensor]) -> Float[Tensor, " bin"] | None:
    """Return the mean histogram of photos, each (C, H, W) in [0, 1]; None without any."""
    total, count = torch.zeros(BINS, dtype=torch.float64), 0
    for photo in photos:
        total, count = total + gradients(photo.float().cpu()).double(), count + 1
    return total / count if count else None


def gradient_distance(
    images: Float[Tensor, "batch channel row column"], usual: Float[Tensor, " bin"]
) -> Float[Tensor, " batch"]:
    """Return the total variation distance of each image's histogram from photos', (B,) float64, from 0 to 1."""
    histograms = [gradients(image.float().cpu().clamp(0, 1)).double() for image in images]
    return torch.stack([(found - usual).abs().sum() / 2 for found in histograms])
