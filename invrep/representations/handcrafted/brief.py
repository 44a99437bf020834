"""Compute dense BRIEF, the signs of differences between smoothed pixels, with a surrogate gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from invrep.errors import InvrepError
from invrep.representations.base import Representation, as_gray
from invrep.representations.handcrafted.signs import soft_bits
from invrep.representations.surrogate import Surrogate
from invrep.stable_names import known_as
from invrep.validation import check_whole

SMOOTHING = 2  # σ in pixels
REACH = 4  # of the smoothing's window of nine pixels
SPREAD = 5  # a patch's side over the standard deviation of its points
TIE = 1e-6  # difference, a four-thousandth of a grey level, up to which two points count as equal


@known_as("brief")
class BRIEF(Representation):
    """Compute BRIEF (Calonder et al., ECCV 2010) of overlapping patches: comparisons of pairs of smoothed pixels.

    The points of a pair are drawn from a Gaussian about the patch's centre with a standard deviation of a fifth of its
    side (the paper's G II), once for all patches. The smoothing is a Gaussian of σ 2 in a window of 9 × 9 pixels.

    The signs have no gradient. A pass with a surrogate gives them the derivative of a sigmoid.

    Args:
        bits: number of comparisons, at least 1.
        patch: side of a patch in pixels, at least 2; None for 32, and 48 with more than 256 bits.
        step: distance in pixels between neighbouring patches, at least 1.
        seed: seed of the pairs of points.

    Shape:
        - images: (B, 1, H, W) or (B, 3, H, W) in [0, 1]; RGB images have the code of their grey versions.
        - code: [(B, bits, ⌊(H − patch − 8)/step⌋ + 1, ⌊(W − patch − 8)/step⌋ + 1)]: 1 where the second point of a pair
          is brighter than the first, else −1. The patch (i, j) begins at the pixel (4 + i·step, 4 + j·step).

    Raises:
        InvrepError: an argument has the wrong type or is out of range, or the image is smaller than a patch and the
            smoothing around it.
    """

    ignores_contrast = True
    keeps_color = False
    stepwise = True
    channels = (1, 3)
    color = "gray"

    def __init__(self, *, bits: int = 256, patch: int | None = None, step: int = 8, seed: int = 0) -> None:
        check_whole("BRIEF", "bits", bits, 1)
        patch = (32 if bits <= 256 else 48) if patch is None else patch
        check_whole("BRIEF", "patch", patch, 2)
        check_whole("BRIEF", "step", step, 1)
        check_whole("BRIEF", "seed", seed, 0)
        super().__init__()
        self.bits, self.patch, self.step, self.seed = bits, patch, step, seed
        self.pairs = pairs(bits, patch, seed)
        self.stride, self.receptive_field = step, patch + 2 * REACH

    def encode(
        self, images: Float[Tensor, "batch channel row column"], surrogate: Surrogate | None
    ) -> list[Float[Tensor, "batch ..."]]:
        """Return [signs] of images (B, C, H, W) in [0, 1]; the class gives shapes and errors."""
        height, width = images.shape[2:]
        least = self.patch + 2 * REACH
        if min(height, width) < least:
            raise InvrepError(
                f"BRIEF with {self.patch}-pixel patches needs images of at least {least}×{least} pixels, not "
                f"{height}×{width}; enlarge the image or choose a smaller patch."
            )
        differences = _Differences.apply(_smooth(as_gray(images))[:, 0], self.pairs, self.patch, self.step)
        return [2 * soft_bits(differences, differences > TIE, surrogate) - 1]

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f"bits={self.bits}, patch={self.patch}, step={self.step}, seed={self.seed}"


def pairs(bits: int, patch: int, seed: int) -> np.ndarray:
    """Return the points of each pair within a patch, (bits, 2, 2): first and second, row and column.

    The two points of a pair differ.
    """
    generator = np.random.RandomState(seed)  # default_rng may draw other numbers in a later NumPy
    drawn: list[np.ndarray] = []
    while len(drawn) < bits:
        points = np.rint((patch - 1) / 2 + patch / SPREAD * generator.standard_normal((2, 2)))
        points = points.clip(0, patch - 1).astype(int)
        if (points[0] != points[1]).any():
            drawn.append(points)
    return np.stack(drawn)


def _smooth(grey: Tensor) -> Tensor:
    """Smooth images, (B, 1, H, W) → (B, 1, H − 8, W − 8)."""
    taps = np.exp(-(np.arange(-REACH, REACH + 1) ** 2) / (2 * SMOOTHING**2))
    window = torch.tensor(taps / taps.sum(), dtype=grey.dtype, device=grey.device)
    return F.conv2d(F.conv2d(grey, window[None, None, :, None]), window[None, None, None])


class _Differences(torch.autograd.Function):
    """Subtract the first point of each pair from the second, in every patch.

    Indexing would give the same values; its backward pass adds to one pixel in any order on a GPU.

    Shape:
        - smoothed: (B, H, W).
        - returns: (B, bits, rows, columns).
    """

    @staticmethod
    def forward(ctx: Any, smoothed: Tensor, pairs: np.ndarray, patch: int, step: int) -> Tensor:
        """Return the differences."""
        ctx.shape, ctx.pairs = smoothed.shape, pairs
        ctx.spans = [(size - patch) // step * step + 1 for size in smoothed.shape[1:]]
        ctx.step = step
        views = [[_shifted(smoothed, point, ctx.spans, step) for point in pair] for pair in pairs]
        return torch.stack([second - first for first, second in views], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the smoothed images."""
        total = grad.new_zeros(ctx.shape)
        for k, (first, second) in enumerate(ctx.pairs):
            _shifted(total, second, ctx.spans, ctx.step).add_(grad[:, k])
            _shifted(total, first, ctx.spans, ctx.step).sub_(grad[:, k])
        return total, None, None, None


def _shifted(x: Tensor, point: np.ndarray, spans: list[int], step: int) -> Tensor:
    """Return a view of the pixels of (B, H, W) that lie at one point of each patch, (B, rows, columns)."""
    row, column = map(int, point)
    return x[:, row : row + spans[0] : step, column : column + spans[1] : step]
