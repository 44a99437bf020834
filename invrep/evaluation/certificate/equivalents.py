"""Find the JPEG quality, the shift and the noise at which a photo is as far from its own code as a pre-image is."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F

Images = Float[Tensor, "batch channel row column"]
Photo = Float[Tensor, "channel row column"]
QUALITIES = range(100, 0, -1)
STRIDES = tuple(dict.fromkeys(round(100 / 1.12**k) for k in range(41)))  # of these, 100 to 1 by 12 %
LEAST_SHIFT, MOST_SHIFT = 2.0**-10, 32.0  # pixels
LEAST_NOISE, MOST_NOISE = 2.0**-8, 256.0  # grey levels
CLOSE = 1.2  # ratio of two strengths between which the error is taken for a power of the strength


def jpeg(photo: Photo, quality: int) -> Photo:
    """Return a photo after JPEG compression by Pillow, with its usual subsampling of colour.

    Args:
        photo: photo of one or three channels in [0, 1].
        quality: JPEG's quality, from 1 to 100.
    """
    file = io.BytesIO()
    F.to_pil_image(photo.detach().cpu().float().clamp(0, 1)).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        found: Tensor = F.to_tensor(image).to(photo)
        return found


def shifted(photo: Photo, pixels: float) -> Images:
    """Return a photo shifted down, up, right and left, as four images, by the phase of its Fourier series.

    The photo is continued by its mirror image, so that no edge wraps around.

    Args:
        photo: photo (C, H, W).
        pixels: shift in pixels, also a fraction of one.
    """
    height, width = photo.shape[-2:]
    mirrored = torch.cat([photo, photo.flip(-1)], -1)
    mirrored = torch.cat([mirrored, mirrored.flip(-2)], -2).double()
    found = []
    for axis, length in ((-2, 2 * height), (-1, 2 * width)):
        shape = [1, 1, 1]
        shape[axis] = -1
        for step in (pixels, -pixels):
            turn = torch.fft.rfftfreq(length, dtype=torch.float64, device=photo.device) * (-2 * math.pi * step)
            wave = torch.fft.rfft(mirrored, dim=axis) * torch.polar(torch.ones_like(turn), turn).view(shape)
            found.append(torch.fft.irfft(wave, length, dim=axis)[..., :height, :width])
    return torch.stack(found).to(photo)


def noisy(photo: Photo, levels: float) -> Photo:
    """Return a photo with Gaussian noise, the same draw at each strength; values are not clipped.

    Args:
        photo: photo (C, H, W) in [0, 1].
        levels: standard deviation in grey levels, of which black to white is 255.
    """
    generator = torch.Generator().manual_seed(0)
    return photo + torch.randn(photo.shape, generator=generator, dtype=torch.float64).to(photo) * (levels / 255)


class Scale:
    """Find the least strength of a distortion at which a photo's error reaches a given one.

    Errors are remembered, so that the restarts of a photo share them. The search takes the error for monotone but for
    dips of two strides: it strides along a grid to the first strength that reaches the error, and walks the last two
    strides again by single steps. It halves the interval before the first step that reaches the error and interpolates.

    Args:
        error_at: function from a strength to the photo's error.
        grid: strengths in the order of rising errors.
        strides: strengths of the grid from stride to stride, the first and the last among them.
        begin: strength at which the search begins, one of ``strides``.
        between: function from two neighbouring strengths to one between them; None where they are close enough.
        bounds: results for an error below that of the first strength, and above that of the last one.
    """

    def __init__(
        self,
        error_at: Callable[[float], float],
        grid: Sequence[float],
        strides: Sequence[float],
        begin: float,
        between: Callable[[float, float], float | None],
        bounds: tuple[float, float],
    ) -> None:
        self._error_at, self._between, self._bounds = cache(error_at), between, bounds
        self._grid, self._strides, self._begin = list(grid), list(strides), list(strides).index(begin)

    def __call__(self, error: float) -> float:
        """Return the strength for an error; a bound where no strength has it, and NaN for NaN."""
        if math.isnan(error):
            return math.nan
        at = self._begin
        while at > 0 and self._error_at(self._strides[at]) >= error:
            at -= 1
        while at < len(self._strides) - 1 and self._error_at(self._strides[at]) < error:
            at += 1
        at = self._grid.index(self._strides[max(at - 2, 0)])
        while at < len(self._grid) and self._error_at(self._grid[at]) < error:
            at += 1
        if at == 0:
            return self._bounds[0]
        if at == len(self._grid):
            return self._bounds[1]
        weak, strong = self._grid[at - 1], self._grid[at]
        while (middle := self._between(weak, strong)) is not None:
            weak, strong = (weak, middle) if self._error_at(middle) >= error else (middle, strong)
        low, high = self._error_at(weak), self._error_at(strong)
        share = math.log(error / low) / math.log(high / low) if 0 < low < high else 1.0
        return float(weak * (strong / weak) ** share)


def _steps(most: float) -> list[float]:
    """Return shifts up to the largest, in pixels: octaves, quarters and halves of a pixel, fifths.

    A shift by half a pixel blurs what a shift by a whole one does not, so HOG's error falls from the one to the other.
    """
    octaves, quarters = [LEAST_SHIFT * 2.0**k for k in range(9)], [k / 4 for k in range(2, 13)]
    halves, fifths = [k / 2 for k in range(7, 17)], [8 * 1.19**k for k in range(1, 9)]
    return [step for step in (*octaves, *quarters, *halves, *fifths) if step < most] + [most]


def _halfway(weak: float, strong: float) -> float | None:
    return math.sqrt(weak * strong) if strong / weak > CLOSE else None


def scales(error_of: Callable[[Tensor], Tensor], photo: Photo) -> dict[str, Scale]:
    """Return the scales ``jpeg_equivalent``, ``shift_equivalent`` and ``noise_equivalent`` of a photo.

    A JPEG's equivalent is its quality: 100 for an error below that of each JPEG, 1 for one above. A shift is between 0
    and 32 pixels or a quarter of the photo's shorter side; its error is the mean over four directions. Noise is between
    0 and 256 grey levels.

    Args:
        error_of: function from images (B, C, H, W) to their errors (B,).
        photo: photo (C, H, W) in [0, 1].
    """
    most = min(MOST_SHIFT, min(photo.shape[-2:]) / 4)
    steps, noises = _steps(most), [LEAST_NOISE * 2.0**k for k in range(17)]

    def compressed(quality: float) -> float:
        return float(error_of(jpeg(photo, int(quality))[None]))

    def moved(pixels: float) -> float:
        return float(error_of(shifted(photo, pixels)).mean())

    def disturbed(levels: float) -> float:
        return float(error_of(noisy(photo, levels)[None]))

    return {
        "jpeg_equivalent": Scale(compressed, QUALITIES, STRIDES, 89, lambda *_: None, (100, 1)),
        "shift_equivalent": Scale(moved, steps, steps, steps[8], _halfway, (0, most)),
        "noise_equivalent": Scale(disturbed, noises, noises, 4.0, _halfway, (0, MOST_NOISE)),
    }
