"""Compute GIST, the energy of oriented filters in a grid of blocks, differentiably."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from math import log, pi

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from invrep.errors import InvrepError
from invrep.representations.base import Representation
from invrep.representations.surrogate import Surrogate
from invrep.stable_names import known_as

BLOCKS = 4  # rows and columns of blocks
CUTOFF = 4  # of the prefilter, in cycles per image
RIM = 5  # pixels that the prefilter repeats at each border
MARGIN = 32  # pixels that the filters repeat at each border
FLATTEST = 1e-6  # least contrast that the code distinguishes from a flat image


@known_as("gist")
class GIST(Representation):
    """Compute GIST (Oliva and Torralba, IJCV 2001) as the authors' ``LMgist.m`` does, at the image's own size.

    Of odd sizes, where ``LMgist.m`` has half a frequency more or less, the code is torchgist's.

    The grey image, scaled to 0 … 255, is whitened and its local contrast normalised. Gabor filters of several scales
    and orientations take its Fourier transform. The code is their mean magnitude in each of 4 × 4 blocks.

    Args:
        orientations: number of orientations at each scale, from fine to coarse.

    Shape:
        - images: (B, 1, H, W) or (B, 3, H, W) in [0, 1]; of RGB images the authors take the mean of the channels.
        - code: [(B, filters, 4, 4)], filters by scale and orientation. The authors' vector has each filter's blocks
          column by column: ``code.transpose(2, 3).flatten(1)``.

    Raises:
        InvrepError: the orientations are no list of positive whole numbers, or the image has fewer than 5 rows or
            columns.
    """

    ignores_contrast = True
    channels = (1, 3)
    color = "gray"
    local_field = 36  # two standard deviations on either side of the coarsest filter of four scales

    def __init__(self, *, orientations: Sequence[int] = (8, 8, 8, 8)) -> None:
        counts = [] if isinstance(orientations, str) or not isinstance(orientations, Sequence) else list(orientations)
        if not counts or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in counts):
            raise InvrepError(
                f"GIST's orientations must be a list of positive whole numbers, one for each scale, such as [8,8,4], "
                f"not {orientations!r}."
            )
        super().__init__()
        self.orientations = tuple(counts)

    def encode(
        self, images: Float[Tensor, "batch channel row column"], surrogate: Surrogate | None
    ) -> list[Float[Tensor, "batch ..."]]:
        """Return [energies] of images (B, C, H, W) in [0, 1]; the class gives shapes and errors."""
        height, width = images.shape[2:]
        if min(height, width) < RIM:
            raise InvrepError(
                f"GIST needs images of at least {RIM}×{RIM} pixels, not {height}×{width}; enlarge the image."
            )
        # One image at a time on a CPU, where the rounding of a transform depends on the number of images.
        parts = images.split(len(images) if images.is_cuda else 1)
        return [torch.cat([self._energies(part) for part in parts])]

    def _energies(self, images: Tensor) -> Tensor:
        """Return the energies of images, (B, C, H, W) → (B, filters, 4, 4)."""
        height, width = images.shape[2:]
        grey = images.mean(1)
        grey = grey - grey.amin((1, 2), keepdim=True)
        grey = grey * (255 / grey.amax((1, 2), keepdim=True).clamp(min=FLATTEST))
        padded = _mirror(_prefilter(grey), (MARGIN, MARGIN), (MARGIN, MARGIN))
        bank = _filters(self.orientations, (padded.shape[1], padded.shape[2]), padded.dtype, padded.device)
        energies = torch.fft.ifft2(torch.fft.fft2(padded)[:, None] * bank).abs()
        return _block_means(energies[..., MARGIN : MARGIN + height, MARGIN : MARGIN + width])

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f"orientations={self.orientations}"


def _prefilter(grey: Tensor) -> Tensor:
    """Whiten images, (B, H, W) in 0 … 255, and divide them by their local contrast (prefilt in LMgist.m)."""
    height, width = grey.shape[1:]
    side = max(height, width) + 2 * RIM
    side += side % 2
    rows, columns = ((RIM, side - RIM - size) for size in (height, width))
    x = _mirror(_mirror((grey + 1).log(), (RIM, RIM), (RIM, RIM)), (0, rows[1] - RIM), (0, columns[1] - RIM))
    low = _low_pass(side, x.dtype, x.device)
    white = x - torch.fft.irfft2(torch.fft.rfft2(x) * low, s=(side, side))
    variance = torch.fft.irfft2(torch.fft.rfft2(white.square()) * low, s=(side, side)).abs()
    contrast = variance.clamp(min=1e-12).sqrt()  # the root's derivative at 0 is infinite
    filtered: Tensor = white / (0.2 + contrast)
    return filtered[:, RIM : RIM + height, RIM : RIM + width]


def _mirror(x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Repeat the borders of (B, H, W) outwards, mirrored with their last pixel, also several times the size."""
    for axis, (before, after) in ((1, rows), (2, columns)):
        size = x.shape[axis]
        place = np.arange(-before, size + after) % (2 * size)
        place = np.minimum(place, 2 * size - 1 - place)
        x = x.index_select(axis, torch.from_numpy(place).to(x.device))
    return x


def _block_means(maps: Tensor) -> Tensor:
    """Return the mean of each block of maps, (B, K, H, W) → (B, K, 4, 4); the blocks' bounds are rounded down."""
    rows, columns = (
        [slice(*bounds) for bounds in pairwise(int(k * size / BLOCKS) for k in range(BLOCKS + 1))]
        for size in maps.shape[2:]
    )
    means = [maps[..., row, column].mean((2, 3)) for row in rows for column in columns]
    grid: Tensor = torch.stack(means, 2).unflatten(2, (BLOCKS, BLOCKS))
    return grid


@lru_cache(maxsize=16)
def _low_pass(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the prefilter's Gaussian for a real transform, (side, side/2 + 1)."""
    vertical, horizontal = np.fft.fftfreq(side, 1 / side)[:, None], np.arange(side // 2 + 1)
    with torch.inference_mode(False):
        values = np.exp(-(vertical**2 + horizontal**2) * (log(2) / CUTOFF**2))
        return torch.tensor(values, dtype=dtype, device=device)


@lru_cache(maxsize=4)  # a bank has the size of 32 images
def _filters(orientations: tuple[int, ...], size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the filters' transfer functions, (filters, H, W) (createGabor.m).

    As there, frequencies in both directions are counted in cycles per width, even if the image is not square.
    """
    height, width = size
    vertical, horizontal = np.meshgrid(_frequencies(height), _frequencies(width), indexing="ij")
    radius, angle = np.hypot(vertical, horizontal), np.arctan2(vertical, horizontal)
    bank = []
    for scale, count in enumerate(orientations):
        centre = width * 0.3 / 1.85**scale
        for k in range(count):
            turned = angle + pi * k / count
            turned -= 2 * pi * (turned > pi)
            bank.append(np.exp(-3.5 * (radius / centre - 1) ** 2 - pi * count**2 / 32 * turned**2))
    with torch.inference_mode(False):
        return torch.tensor(np.stack(bank), dtype=dtype, device=device)


def _frequencies(size: int) -> np.ndarray:
    """Return the frequency of each row or column of a transform, (size,), as torchgist has it for odd sizes, too."""
    frequencies: np.ndarray = np.fft.fftshift(np.arange(-size // 2, size // 2))
    return frequencies
