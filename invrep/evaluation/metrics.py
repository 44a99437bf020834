"""How far a pre-image's code, and its pixels, are from the photo's (paper.md §5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

SSIM_WINDOW = 11  # pixels; torchmetrics' Gaussian window
STRIP = 2**16  # pixels of an image whose SSIM is computed at once, in which torchmetrics holds the image 80 times
DOUBLE = 8  # how many times as much memory a pixel takes in float64, for which torch's convolution has no better way


class _PerImage(Metric):
    """Mean and standard deviation of one value per image, over all images seen."""

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    values: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def _all(self) -> Tensor:
        values = self.values
        return torch.cat(values) if isinstance(values, list) else values

    def compute(self) -> dict[str, Tensor]:
        """Return ``mean`` and ``std`` (with n − 1; NaN for one image), each ()."""
        values = self._all()
        return {"mean": values.mean(), "std": values.std() if len(values) > 1 else values.new_tensor(float("nan"))}


class RelativeError(_PerImage):
    """‖Φ−Φ0‖²/‖Φ0‖², definition (a), or its root, definition (b).

    Args:
        root: whether to take the square root (IJCV) or not (the CVPR code's ``res.err``).
    """

    def __init__(self, *, root: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = root

    def update(self, distance: Tensor, norm: Tensor) -> None:
        """Add images. Shape: ‖Φ−Φ0‖² (B,) and ‖Φ0‖² (B,)."""
        ratio = distance / norm
        self.values.append(ratio.sqrt() if self.root else ratio)


class PairwiseError(_PerImage):
    """‖Φ−Φ0‖² / mean_ij ‖Φ0_i − Φ0_j‖², definition (c), the mean over all ordered pairs of photos, i = j included.

    The mean is 2(mean‖Φ0‖² − ‖mean Φ0‖²), so that one pass over the photos' codes is enough. Give every photo's code
    to :meth:`add_code` once, and every pre-image's distance to :meth:`update`.
    """

    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # doubles, since the two terms of the difference are close for similar codes
        self.add_state("total", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def add_code(self, code: Tensor) -> None:
        """Add photos' codes Φ0, (B, …), all of one shape."""
        flat = code.detach().flatten(1).double()
        self.total = self.total + flat.sum(0)
        self.squares = self.squares + flat.square().sum()
        self.count = self.count + len(flat)

    def update(self, distance: Tensor) -> None:
        """Add pre-images. Shape: ‖Φ−Φ0‖² (B,)."""
        self.values.append(distance)

    def normaliser(self) -> Tensor:
        """Return mean_ij ‖Φ0_i − Φ0_j‖² over the photos seen, (); NaN for fewer than two."""
        if self.count < 2:
            return torch.full((), float("nan"), dtype=torch.float64)
        return 2 * (self.squares / self.count - (self.total / self.count).square().sum())

    def compute(self) -> dict[str, Tensor]:
        """Return ``mean`` and ``std`` of the error, each ()."""
        values = self._all() / self.normaliser()
        return {"mean": values.mean(), "std": values.std() if len(values) > 1 else values.new_tensor(float("nan"))}


def psnr(images: Tensor, photos: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB of values clipped to [0, 1]. Shape: (B, C, H, W) → (B,)."""
    return _each(_psnr, images, photos)


def ssim(images: Tensor, photos: Tensor) -> Tensor:
    """Return the structural similarity of values clipped to [0, 1]; NaN below 11 pixels. (B, C, H, W) → (B,)."""
    if min(images.shape[-2:]) < SSIM_WINDOW:
        return images.new_full((len(images),), float("nan"))
    return _each(_ssim, images, photos)


def _each(measure: Callable[[Tensor, Tensor], Tensor], images: Tensor, photos: Tensor) -> Tensor:
    """Return a measure of each image by itself, so that its memory does not grow with the batch."""
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
