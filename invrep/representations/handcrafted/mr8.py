"""Compute the maximum response filters MR8, the descriptor of textons, differentiably."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from invrep.errors import InvrepError
from invrep.representations.base import Representation, as_gray
from invrep.representations.surrogate import Surrogate
from invrep.stable_names import known_as
from invrep.validation import check_whole

SIDE = 49  # of a filter, in pixels
ORIENTATIONS = 6
SCALES = (1, 2, 4)
BLOB = 10  # σ of the Gaussian and of its Laplacian, in pixels
ORIENTED = 2 * len(SCALES) * ORIENTATIONS
CONTRAST = 0.03  # L of Weber's law, in units of an image's standard deviation
FLATTEST = 1e-5  # standard deviation, a four-hundredth of a grey level, below which the code is zero


@known_as("mr8")
class MR8(Representation):
    """Compute MR8 (Varma and Zisserman, IJCV 2005): eight responses of 38 filters at every pixel.

    The filters are the authors' (``makeRFSfilters.m``): edges and bars of σ 1, 2 and 4 pixels and elongation 3 at six
    orientations, a Gaussian and its Laplacian of σ 10. Each is 49 × 49, of mean zero and L1 norm 1, and is applied
    as a convolution to the grey image, less its mean and over its standard deviation. Of each oriented filter the code
    keeps the greatest absolute value over the orientations.

    Args:
        step: distance in pixels between neighbouring positions, at least 1.
        weber: whether the responses F of a pixel become F·log(1 + L/.03)/L, where L is their L2 norm.

    Shape:
        - images: (B, 1, H, W) or (B, 3, H, W) in [0, 1]; RGB images have the code of their grey versions.
        - code: [(B, 8, ⌊(H − 49)/step⌋ + 1, ⌊(W − 49)/step⌋ + 1)]: edges and bars of σ 1, 2, 4, the Gaussian, its
          Laplacian. Position (i, j) is the pixel (24 + i·step, 24 + j·step), so that no filter passes the border.

    Raises:
        InvrepError: an argument has the wrong type or is out of range, or the image is smaller than a filter.
    """

    placing = ("step",)
    ignores_contrast = True
    keeps_color = False
    channels = (1, 3)
    color = "gray"
    receptive_field = SIDE

    def __init__(self, *, step: int = 1, weber: bool = True) -> None:
        check_whole("MR8", "step", step, 1)
        if not isinstance(weber, bool):
            raise InvrepError(f"MR8's weber must be true or false, not {weber!r}.")
        super().__init__()
        self.step, self.weber = step, weber
        self.stride = step

    def encode(
        self, images: Float[Tensor, "batch channel row column"], surrogate: Surrogate | None
    ) -> list[Float[Tensor, "batch ..."]]:
        """Return [responses] of images (B, C, H, W) in [0, 1]; the class gives shapes and errors."""
        height, width = images.shape[2:]
        if min(height, width) < SIDE:
            raise InvrepError(
                f"MR8 needs images of at least {SIDE}×{SIDE} pixels, the size of its filters, not {height}×{width}; "
                f"enlarge the image."
            )
        grey = as_gray(images)
        variance, mean = torch.var_mean(grey, (2, 3), keepdim=True)
        flat = variance < FLATTEST**2
        standard = (grey - mean) * variance.masked_fill(flat, 1).rsqrt().masked_fill(flat, 0)
        responses = self._responses(standard)
        oriented = responses[:, :ORIENTED].unflatten(1, (-1, ORIENTATIONS))
        # Not amax of absolute values, whose backward pass keeps and compares all 36 maps.
        strongest = oriented.detach().abs().argmax(2, keepdim=True)
        code = torch.cat([oriented.gather(2, strongest)[:, :, 0].abs(), responses[:, ORIENTED:]], 1)
        return [_weber(code) if self.weber else code]

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f"step={self.step}, weber={self.weber}"

    def _responses(self, images: Tensor) -> Tensor:
        """Return the responses of all filters where they lie within the images, (B, 1, H, W) → (B, 38, h, w)."""
        height, width = images.shape[2:]
        size = (_fast_length(height), _fast_length(width))
        spectra = _spectra(size, images.dtype, images.device)
        # A cyclic convolution of the image's size or more is wrong at its first 48 rows and columns alone.
        cyclic: Tensor = torch.fft.irfft2(torch.fft.rfft2(images, s=size) * spectra, s=size)
        return cyclic[:, :, SIDE - 1 : height : self.step, SIDE - 1 : width : self.step]


def filters() -> np.ndarray:
    """Return the 38 filters, (38, 49, 49): 18 edges and 18 bars by scale and orientation, Gaussian, Laplacian."""
    half = SIDE // 2
    x, y = np.meshgrid(np.arange(-half, half + 1.0), np.arange(half, -half - 1.0, -1))
    angles = np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS
    made = [
        _gaussian(3 * scale, np.cos(angle) * x - np.sin(angle) * y, 0)
        * _gaussian(scale, np.sin(angle) * x + np.cos(angle) * y, order)
        for order in (1, 2)
        for scale in SCALES
        for angle in angles
    ]
    square = x * x + y * y
    blob = np.exp(-square / (2 * BLOB**2))
    made += [blob, blob * (square - 2 * BLOB**2)]
    bank = np.stack(made)
    bank -= bank.mean((1, 2), keepdims=True)
    whole: np.ndarray = bank / np.abs(bank).sum((1, 2), keepdims=True)
    return whole


def _gaussian(sigma: float, t: np.ndarray, order: int) -> np.ndarray:
    """Return a Gaussian's derivative of order 0, 1 or 2 at t, up to a factor."""
    factor = (1, -t, t * t - sigma**2)[order]
    values: np.ndarray = factor * np.exp(-t * t / (2 * sigma**2))
    return values


def _fast_length(least: int) -> int:
    """Return the least length from ``least`` on whose prime factors are 2, 3, 5 and 7, which a transform takes fast."""
    rest = least
    for prime in (2, 3, 5, 7):
        while rest % prime == 0:
            rest //= prime
    return least if rest == 1 else _fast_length(least + 1)


@lru_cache(maxsize=4)  # a spectrum has the size of 38 images
def _spectra(size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the filters' transforms at a size (H, W), (38, H, ⌊W/2⌋ + 1), complex."""
    with torch.inference_mode(False):
        spectra: Tensor = torch.fft.rfft2(torch.from_numpy(filters()), s=size)
        return spectra.to(torch.complex128 if dtype == torch.float64 else torch.complex64).to(device)


def _weber(responses: Tensor) -> Tensor:
    """Return F·log(1 + L/.03)/L of responses F, (B, 8, h, w), with L their norm over the eight."""
    norm = responses.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()  # the root's derivative at 0 is infinite
    return responses * ((norm / CONTRAST).log1p() / norm)
