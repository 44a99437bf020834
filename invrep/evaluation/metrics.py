"""Measure how far a pre-image's code and pixels are from the photo's (paper.md §5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

SSIM_WINDOW = 11  # pixels; torchmetrics' Gaussian window
STRIP = 2**16  # pixels per SSIM computation, in which torchmetrics holds the image 80 times
DOUBLE = 8  # factor of a pixel's memory in float64: torch has no lean convolution there


class PairwiseDistance(Metric):
    """Compute mean_ij ‖Φ0_i − Φ0_j‖² over all ordered pairs of photos, i = j included: the divisor of definition (c).

    It equals 2(mean‖Φ0‖² − ‖mean Φ0‖²), so one pass over the photos' codes is enough.
    """

    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # In float64, since the two terms of the difference are close for similar codes.
        for name in ("total", "squares", "count"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, code: Tensor) -> None:
        """Add codes Φ0 of photos, (B, …), all of one shape."""
        flat = code.detach().flatten(1).double()
        self.total = self.total + flat.sum(0)
        self.squares = self.squares + flat.square().sum()
        self.count = self.count + len(flat)

    def compute(self) -> Tensor:
        """Return the mean over the photos seen, () float64; NaN for fewer than two."""
        if self.count < 2:
            return torch.full((), float("nan"), dtype=torch.float64)
        return 2 * (self.squares / self.count - (self.total / self.count).square().sum())


def psnr(
    images: Float[Tensor, "batch channel row column"], photos: Float[Tensor, "batch channel row column"]
) -> Float[Tensor, " batch"]:
    """Return the peak signal-to-noise ratio in dB of values clipped to [0, 1]. Shape: (B, C, H, W) → (B,)."""
    return _each(_psnr, images, photos)


def ssim(
    images: Float[Tensor, "batch channel row column"], photos: Float[Tensor, "batch channel row column"]
) -> Float[Tensor, " batch"]:
    """Return the structural similarity of values clipped to [0, 1]; NaN below 11 pixels. Shape: (B, C, H, W) → (B,)."""
    if min(images.shape[-2:]) < SSIM_WINDOW:
        return images.new_full((len(images),), float("nan"))
    return _each(_ssim, images, photos)


def _each(measure: Callable[[Tensor, Tensor], Tensor], images: Tensor, photos: Tensor) -> Tensor:
    """Return a measure of each image, (B,), one image at a time: its memory does not grow with the batch."""
    pairs = zip(images.split(1), photos.split(1), strict=True)
    return torch.stack([measure(image.clamp(0, 1), photo.clamp(0, 1)) for image, photo in pairs])


def _psnr(image: Tensor, photo: Tensor) -> Tensor:
    return peak_signal_noise_ratio(image, photo, data_range=1.0, reduction="none", dim=(1, 2, 3)).reshape(())


def _ssim(image: Tensor, photo: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    pixels = STRIP if image.dtype == torch.float32 else STRIP // DOUBLE
    rows, halo = max(pixels // width, SSIM_WINDOW), SSIM_WINDOW // 2
    total = image.new_zeros(())
    for top in range(0, height, rows):
        first, count = max(top - halo, 0), min(rows, height - top)
        strip, wanted = (x[:, :, first : top + count + halo] for x in (image, photo))
        _, found = structural_similarity_index_measure(
            strip, wanted, data_range=1.0, reduction="none", return_full_image=True
        )
        total += found[:, :, top - first : top - first + count].mean() * (count / height)
    return total
