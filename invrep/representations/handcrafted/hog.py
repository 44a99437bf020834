"""Compute UoCTTI HOG (histograms of oriented gradients), differentiably: VLFeat's, and the CVPR paper's network."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from invrep.errors import InvrepError
from invrep.representations.base import Representation, as_gray
from invrep.representations.handcrafted.orientation_votes import (
    NETWORK_SOFTENING,
    constant,
    linear_votes,
)
from invrep.representations.handcrafted.oriented_gradients import (
    SCHEDULE,
    Differences,
    Vote,
    pool_columns,
    rows_of,
)
from invrep.representations.surrogate import Surrogate
from invrep.stable_names import known_as
from invrep.validation import check_choice, check_whole

# Bound of a cell's value in the norm of a block.
CLIP = 0.2


@known_as("hog")
class HOG(Representation):
    """Compute UoCTTI HOG with hard (HOG) or bilinear (HOGb) orientation binning.

    ``variant="vlfeat"`` is ``vl_hog`` (VLFeat 0.9.21, vl/hog.c, not transposed) of the float image in [0, 1].
    ``variant="cvpr15"`` is the authors' own network ``hog_net`` (deep-goggle, experiments/networks; paper.md §3) of
    255·image − 128. It is grey only, has no texture channels, pads its first convolution with zeros, and gives border
    cells fewer blocks.

    Args:
        binning: orientation binning. ``"hard"`` gives a pixel's whole gradient to the nearest of the 2K directed
            orientations; its derivative passes through the gradient's magnitude only. ``"bilinear"`` shares the
            gradient between the nearest two.
        cell: side of a cell in pixels, at least 1; even for ``cvpr15``.
        orientations: number K of undirected orientations, at least 2.
        variant: implementation to match, ``"vlfeat"`` or ``"cvpr15"``.
        straight_through: whether hard binning takes the derivative of bilinear binning; the value stays hard-binned. A
            pass with a surrogate takes this derivative in any case.

    Shape:
        - images: (B, C, H, W) in [0, 1]; C is 1 or 3. Of RGB images, vlfeat takes the channel of largest gradient, and
          cvpr15 their grey versions.
        - code: [(B, 3K + 4, ⌊(H + cell/2)/cell⌋, ⌊(W + cell/2)/cell⌋)] for vlfeat: 2K directed, K undirected
          orientations, 4 texture energies, in vl_hog's order; [(B, 3K, ⌊H/cell⌋, ⌊W/cell⌋)] for cvpr15.

    Raises:
        InvrepError: an argument has the wrong type or is out of range; or the image is too small for one cell (cvpr15:
            for one block of 2 × 2 cells).
    """

    ignores_contrast = True
    schedule = SCHEDULE

    def __init__(
        self,
        *,
        binning: str = "hard",
        cell: int = 8,
        orientations: int = 9,
        variant: str = "vlfeat",
        straight_through: bool = False,
    ) -> None:
        check_choice("HOG", "binning", binning, ("hard", "bilinear"))
        check_choice("HOG", "variant", variant, ("vlfeat", "cvpr15"))
        check_whole("HOG", "cell", cell, 1)
        check_whole("HOG", "orientations", orientations, 2)
        if variant == "cvpr15" and cell % 2:
            raise InvrepError(
                f"HOG's variant cvpr15 needs an even cell, not {cell}; take {cell + 1} or variant=vlfeat."
            )
        if not isinstance(straight_through, bool):
            raise InvrepError(f"HOG's straight_through must be true or false, not {straight_through!r}.")
        if straight_through and binning != "hard":
            raise InvrepError(
                "HOG's straight_through is for binning=hard, since bilinear binning has that derivative already; "
                "set straight_through=false or binning=hard."
            )
        super().__init__()
        self.binning, self.variant, self.straight_through = binning, variant, straight_through
        self.cell, self.orientations = cell, orientations
        self.channels = (1, 3)
        self.keeps_color = variant == "vlfeat"
        self.color = "gray"  # as in the paper: the code keeps no colour
        self.stride = cell
        # Two pixels of derivative, a triangle over one cell, and the neighbouring cells of the four blocks.
        self.receptive_field = 4 * cell - cell % 2 + 2
        self.start = (cell - self.receptive_field) // 2

    def encode(
        self, images: Float[Tensor, "batch channel row column"], surrogate: Surrogate | None
    ) -> list[Float[Tensor, "batch ..."]]:
        """Return [code] of images (B, C, H, W) in [0, 1]; the class gives shapes and errors."""
        vlfeat = self.variant == "vlfeat"
        self._check_size(images)
        if vlfeat:
            gx, gy = Differences.apply(images)
        else:
            # hog_net sees the centred image inside a frame of zeros.
            gx, gy = Differences.apply(F.pad(255 * as_gray(images) - 128, (1, 1, 1, 1)) / 2)
        hard = self.binning == "hard"
        vote = partial(
            linear_votes,
            orientations=self.orientations,
            hard=hard,
            through_angle=not hard or self.straight_through or surrogate is not None,
            soften=0.0 if vlfeat else NETWORK_SOFTENING,
        )
        weights = _vlfeat_weights if vlfeat else _network_weights
        height, width = images.shape[2:]
        rows = rows_of(weights, (height, self.cell), gx.dtype, gx.device)
        columns = constant(weights, (width, self.cell), gx.dtype, gx.device)
        directed = pool_columns(Vote.apply(gx, gy, vote, 2 * self.orientations, rows), columns)
        undirected = directed[:, : self.orientations] + directed[:, self.orientations :]
        factors = _vlfeat_factors(undirected) if vlfeat else _network_factors(undirected)
        return [Normalise.apply(torch.cat([directed, undirected], 1), factors, vlfeat)]

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return (
            f"binning={self.binning}, cell={self.cell}, orientations={self.orientations}, variant={self.variant}, "
            f"straight_through={self.straight_through}"
        )

    def _check_size(self, images: Tensor) -> None:
        least = max(4, (self.cell + 1) // 2) if self.variant == "vlfeat" else 2 * self.cell
        height, width = images.shape[2:]
        if min(height, width) < least:
            raise InvrepError(
                f"HOG with {self.cell}-pixel cells ({self.variant}) needs images of at least {least}×{least} pixels, "
                f"not {height}×{width}; enlarge the image or choose a smaller cell."
            )


def _vlfeat_weights(size: int, cell: int) -> np.ndarray:
    """Return each interior pixel's share in each cell, linear between cell centres, (cells, size − 2)."""
    position = (np.arange(1, size - 1) + 0.5) / cell - 0.5
    weights: np.ndarray = np.maximum(0, 1 - np.abs(position - np.arange((size + cell // 2) // cell)[:, None]))
    return weights


def _network_weights(size: int, cell: int) -> np.ndarray:
    """Return (cells, size): hog_net's triangle of 2·cell taps, stride of one cell, padded by half a cell."""
    position = (np.arange(size) + 0.5) / cell - 0.5
    weights: np.ndarray = np.maximum(0, 1 - np.abs(position - np.arange(size // cell)[:, None]))
    return weights


def _vlfeat_factors(undirected: Tensor) -> Tensor:
    """Return one over the norm of each 2 × 2 block, (B, 1, h + 1, w + 1); border cells are repeated outwards."""
    square = F.pad(undirected.square().sum(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return (_blocks(square) + 1e-4).rsqrt()


def _network_factors(undirected: Tensor) -> Tensor:
    """Return one over the norm of each 2 × 2 block, (B, 1, h + 1, w + 1); zero for blocks over the border."""
    square = undirected.square().sum(1, keepdim=True)
    # The authors' max(norm, 1e-6); clamped before the root, whose derivative at zero is infinite.
    return F.pad(_blocks(square).clamp(min=1e-12).rsqrt(), (1, 1, 1, 1))


def _blocks(x: Tensor) -> Tensor:
    """Add 2 × 2 neighbours: (…, h, w) → (…, h − 1, w − 1)."""
    return x[..., :-1, :-1] + x[..., :-1, 1:] + x[..., 1:, :-1] + x[..., 1:, 1:]


def _corners(factors: Tensor) -> list[Tensor]:
    """Return the factors of each cell's four blocks, (B, 1, h + 1, w + 1) → (B, 1, h, w) each."""
    parts = (slice(None, -1), slice(1, None))
    return [factors[..., row, column] for row in parts for column in parts]


class Normalise(torch.autograd.Function):
    """Scale each cell by its four blocks' factors, clip at .2 and add the halves.

    Autograd would give the same derivative, but keep, fill and add several times as many arrays.

    Shape:
        - histograms: (B, 3K, h, w).
        - factors: (B, 1, h + 1, w + 1).
        - returns: (B, 3K + 4, h, w), or (B, 3K, h, w) without texture.
    """

    @staticmethod
    def forward(ctx: Any, histograms: Tensor, factors: Tensor, texture: bool) -> Tensor:
        """Return the code."""
        ctx.save_for_backward(histograms, factors)
        batch, channels, *size = histograms.shape
        code = histograms.new_zeros(batch, channels + 4 * texture, *size)
        for index, corner in enumerate(_corners(factors)):
            block = (histograms * corner).clamp_(max=CLIP)
            code[:, :channels].add_(block)
            if texture:
                code[:, channels + index] = block[:, channels // 3 * 2 :].sum(1)
        code[:, :channels] *= 0.5
        # √18 for every number of orientations, as in vl/hog.c.
        code[:, channels:] /= 18**0.5
        return code

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the histograms and of the factors."""
        histograms, factors = ctx.saved_tensors
        channels = histograms.shape[1]
        undirected = slice(channels // 3 * 2, channels)
        halves, energies = 0.5 * grad[:, :channels], grad[:, channels:, None] / 18**0.5
        grad_histograms, grad_factors = torch.zeros_like(histograms), torch.zeros_like(factors)
        corners = zip(_corners(factors), _corners(grad_factors), strict=True)
        for index, (corner, grad_corner) in enumerate(corners):
            unclipped = (histograms * corner).le_(CLIP)  # floats 0 and 1
            block = unclipped * halves
            if channels < grad.shape[1]:
                block[:, undirected] += unclipped[:, undirected] * energies[:, index]
            grad_histograms.add_(block * corner)
            grad_corner += block.mul_(histograms).sum(1, keepdim=True)
        return grad_histograms, grad_factors, None
