"""Compute dense SIFT, differentiably: VLFeat's, and the network form of the CVPR paper."""

from __future__ import annotations

from functools import partial
from math import pi

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from invrep.errors import InvrepError
from invrep.representations.base import Representation, as_gray
from invrep.representations.handcrafted.orientation_votes import (
    NETWORK_SOFTENING,
    Split,
    Votes,
    constant,
    linear_votes,
    polar,
)
from invrep.representations.handcrafted.oriented_gradients import (
    SCHEDULE,
    Differences,
    Vote,
    pool_columns,
    pool_rows,
    rows_of,
)
from invrep.representations.surrogate import Surrogate
from invrep.stable_names import known_as
from invrep.validation import check_choice, check_whole

ORIENTATIONS = 8
SPATIAL_BINS = 4
# vl/mathop.h: vl_fast_sqrt_f's bound of zero, and the float32 epsilon that keeps denominators positive.
FLAT = 1e-8
EPSILON = 2.0**-23


@known_as("dsift")
class DSIFT(Representation):
    """Compute dense SIFT: 4 × 4 spatial bins × 8 directed orientations on a regular grid, upright, at one scale.

    ``variant="vlfeat"`` is ``vl_dsift`` (VLFeat 0.9.21, vl/dsift.c) with its exact Gaussian window of size 2, divided
    by 512. Its descriptors have unit norm, are clipped at .2, have unit norm again, and are clipped at 255/512.
    ``variant="cvpr15"`` is the authors' own network ``dsift_net`` (deep-goggle, experiments/networks; paper.md §3) of
    255·image − 128. Its descriptors have unit norm and are clipped at .2.

    Args:
        step: distance between descriptors, at least 1; in pixels for vlfeat, in spatial bins for cvpr15.
        bin: side of a spatial bin in pixels, at least 1.
        variant: implementation to match, ``"vlfeat"`` or ``"cvpr15"``.

    Shape:
        - images: (B, 1, H, W) or (B, 3, H, W) in [0, 1]; RGB images have the code of their grey versions.
        - code: [(B, 128, rows, columns)]; channels in VLFeat's order: bin row, bin column, orientation. The vlfeat
          descriptor (i, j) has its centre at the pixel (i·step + 1.5·bin, j·step + 1.5·bin).

    Raises:
        InvrepError: an argument has the wrong type or is out of range, or the image is too small for one descriptor.
    """

    placing = ("step",)
    ignores_contrast = True
    keeps_color = False
    channels = (1, 3)
    color = "gray"
    schedule = SCHEDULE

    def __init__(self, *, step: int = 3, bin: int = 5, variant: str = "vlfeat") -> None:
        check_whole("DSIFT", "step", step, 1)
        check_whole("DSIFT", "bin", bin, 1)
        check_choice("DSIFT", "variant", variant, ("vlfeat", "cvpr15"))
        super().__init__()
        self.step, self.bin, self.variant = step, bin, variant
        self.stride = step if variant == "vlfeat" else step * bin
        # The descriptor's bins are four overlapping triangles; the derivative adds two pixels.
        self.receptive_field = 5 * bin + (1 if variant == "vlfeat" else 2)
        self.start = -bin if variant == "vlfeat" else 0

    def encode(
        self, images: Float[Tensor, "batch channel row column"], surrogate: Surrogate | None
    ) -> list[Float[Tensor, "batch ..."]]:
        """Return [descriptors] of images (B, C, H, W) in [0, 1]; the class gives shapes and errors."""
        vlfeat = self.variant == "vlfeat"
        self._check_size(images)
        images = as_gray(images)
        if vlfeat:
            # Central differences inside, one-sided ones in the outermost rows and columns.
            gy, gx = torch.gradient(images[:, 0], dim=(1, 2))
        else:
            gx, gy = Differences.apply((255 * images - 128) / 2)
        vote = (
            _fast_votes
            if vlfeat
            else partial(
                linear_votes,
                orientations=ORIENTATIONS // 2,
                hard=False,
                through_angle=True,
                soften=NETWORK_SOFTENING,
            )
        )
        weights = _vlfeat_weights if vlfeat else _network_weights
        rows, columns = (
            constant(weights, (size, self.step, self.bin), images.dtype, images.device) for size in gx.shape[1:]
        )
        maps = Vote.apply(gx, gy, vote, ORIENTATIONS, rows_of(np.eye, gx.shape[1:2], gx.dtype, gx.device))
        pooled = pool_rows(pool_columns(maps, columns), rows)
        bins = pooled.unflatten(3, (SPATIAL_BINS, -1)).unflatten(2, (SPATIAL_BINS, -1))
        # (B, orientation, bin row, row, bin column, column) → (B, bin row, bin column, orientation, row, column)
        descriptors = bins.permute(0, 2, 4, 1, 3, 5).flatten(1, 3)
        if vlfeat:
            return [_unit(_unit(descriptors).clamp(max=0.2)).clamp(max=255 / 512)]
        # MatConvNet's normalisation across all channels, κ = 1e-6 (dsift_net.m).
        return [(descriptors * (descriptors.square().sum(1, keepdim=True) + 1e-6).rsqrt()).clamp(max=0.2)]

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f"step={self.step}, bin={self.bin}, variant={self.variant}"

    def _check_size(self, images: Tensor) -> None:
        least = 3 * self.bin + 1 if self.variant == "vlfeat" else 5 * self.bin + 2
        height, width = images.shape[2:]
        if min(height, width) < least:
            raise InvrepError(
                f"DSIFT with {self.bin}-pixel bins ({self.variant}) needs images of at least {least}×{least} pixels, "
                f"not {height}×{width}; enlarge the image or choose a smaller bin."
            )


def _fast_votes(gx: Tensor, gy: Tensor) -> Votes:
    """Return votes for the 8 directions by VLFeat's approximate atan2 (vl_fast_atan2_f, vl/mathop.h).

    The approximation is off by up to .01 radian, more than a hundredth of a bin, so the true angle would give another
    code. It is the cubic ±(π/4 or 3π/4 + (.1821·r² − .9675)·r) in r = (|x| − |y|)/(|x| + |y|), times the sign of x.

    Args:
        gx: image gradient along x, (B, H, W).
        gy: image gradient along y, (B, H, W).
    """
    magnitude, cos, sin = polar(gx, gy, FLAT)
    x, y = gx.abs(), gy.abs() + EPSILON
    right, below = gx >= 0, gy < 0
    ratio = torch.where(right, x - y, y - x) / (x + y)
    square = ratio * ratio
    angle = torch.where(right, pi / 4, 3 * pi / 4).to(gx.dtype) + (0.1821 * square - 0.9675) * ratio
    angle = torch.where(below, -angle, angle)
    position = torch.where(angle < 0, angle + 2 * pi, angle) * (ORIENTATIONS / (2 * pi))
    floor = position.floor()
    lower = floor.int() % ORIENTATIONS
    # d angle / d true angle; (|cos| + |sin|)² is at least 1 except at flat pixels.
    slope = 2 * (0.9675 - 0.5463 * square) / (cos.abs() + sin.abs()).square().clamp(min=1)
    slope = slope * (ORIENTATIONS / (2 * pi))
    return Votes(magnitude, cos, sin, None, Split(lower, (lower + 1) % ORIENTATIONS, position - floor, -slope, slope))


def _unit(descriptors: Tensor) -> Tensor:
    """Divide (B, 128, …) by its norm over the channels plus epsilon; a norm below 1e-4 counts as 0 (vl/dsift.c)."""
    square = descriptors.square().sum(1, keepdim=True)
    flat = square < FLAT
    norm = square.masked_fill(flat, 1).sqrt().masked_fill(flat, 0)
    return descriptors / (norm + EPSILON)


def _vlfeat_weights(size: int, step: int, bin: int) -> np.ndarray:
    """Return each pixel's weight in each bin of each of the n descriptors along one side, (4·n, size).

    A weight is a triangle about the bin's centre times a Gaussian of 2 bins about the descriptor's centre. Pixels
    outside the image repeat the border's.
    """
    corner = step * np.arange((size - 1 - 3 * bin) // step + 1)
    offset = np.arange(1 - bin, bin)
    weights = np.zeros((SPATIAL_BINS, len(corner), size))
    for index in range(SPATIAL_BINS):
        centre = bin * index
        taps = (1 - np.abs(offset) / bin) * np.exp(-0.5 * ((centre + offset - 1.5 * bin) / (2 * bin)) ** 2)
        pixels = np.clip(corner[:, None] + centre + offset, 0, size - 1)
        np.add.at(weights[index], (np.arange(len(corner))[:, None], pixels), taps)
    return weights.reshape(-1, size)


def _network_weights(size: int, step: int, bin: int) -> np.ndarray:
    """Return (4·n, size): dsift_net's triangle of 2·bin taps, stride of one bin, then 4 bins under a Gaussian.

    ``size`` is the side of the derivatives, two pixels less than the image's.
    """
    count = ((size - 2 * bin) // bin - 3) // step + 1
    index = np.arange(SPATIAL_BINS)[:, None, None]
    centre = bin * (step * np.arange(count)[:, None] + index + 1)
    triangle = np.maximum(0, 1 - np.abs(np.arange(size) + 0.5 - centre) / bin)
    weights: np.ndarray = triangle * np.exp(-0.5 * ((index - 1.5) / 1.5) ** 2)
    return weights.reshape(-1, size)
