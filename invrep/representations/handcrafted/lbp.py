"""Compute histograms of local binary patterns (LBP), with a surrogate gradient."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from invrep.errors import InvrepError
from invrep.representations.base import Representation, as_gray
from invrep.representations.handcrafted.signs import soft_bits
from invrep.representations.surrogate import Surrogate
from invrep.stable_names import known_as
from invrep.validation import check_choice, check_whole

# Neighbours (row, column) counter-clockwise from the right. Diagonal ones lie on the circle, between four pixels.
NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
DIAGONAL = 0.70711  # scikit-image rounds positions to five decimals
SNAP = 2e-5  # grey levels by which the rounding of float32 moves one of 8 bits
METHODS = ("nri_uniform", "uniform")


@known_as("lbp")
class LBP(Representation):
    """Compute histograms of uniform local binary patterns (Ojala et al., PAMI 2002), equal to scikit-image's.

    A pixel's pattern are eight bits: whether each of its neighbours at radius 1 is at least as bright. A pattern is
    uniform if its bits change at most twice around the circle. All others share one bin.

    As in scikit-image, pixels outside the image are black, and ties are decided in float64. Of a photo of 8 bits the
    code is that of its integer grey levels: values within 2e-5 of one count as the integer.

    The bits have no gradient. A pass with a surrogate gives a bit the derivative of a sigmoid, and the histogram the
    derivative that a change of this bit alone makes.

    Args:
        method: bins of uniform patterns, as in scikit-image. ``"nri_uniform"`` tells rotated patterns apart: 59 bins;
            ``"uniform"`` counts the ones of a pattern: 10 bins.
        cell: side in pixels of the cells with a histogram each, at least 1; None for one histogram of the image.

    Shape:
        - images: (B, 1, H, W) or (B, 3, H, W) in [0, 1]; RGB images have the code of their grey versions.
        - code: [(B, bins, ⌊H/cell⌋, ⌊W/cell⌋)], or [(B, bins)] of the whole image; the bins of a histogram sum to 1.
          Pixels right of or below the last whole cell are in no histogram.

    Raises:
        InvrepError: an argument has the wrong type or is out of range, or the image is smaller than a cell.
    """

    ignores_contrast = True
    keeps_color = False
    stepwise = True
    channels = (1, 3)
    color = "gray"
    local_field = 3

    def __init__(self, *, method: str = "nri_uniform", cell: int | None = 16) -> None:
        check_choice("LBP", "method", method, METHODS)
        super().__init__()
        self.method, self.cell = method, cell
        if cell is not None:
            check_whole("LBP", "cell", cell, 1)
            self.stride, self.receptive_field, self.start = cell, cell + 2, -1

    def encode(
        self, images: Float[Tensor, "batch channel row column"], surrogate: Surrogate | None
    ) -> list[Float[Tensor, "batch ..."]]:
        """Return [histograms] of images (B, C, H, W) in [0, 1]; the class gives shapes and errors."""
        height, width = images.shape[2:]
        if self.cell is not None and min(height, width) < self.cell:
            raise InvrepError(
                f"LBP with {self.cell}-pixel cells needs images of at least {self.cell}×{self.cell} pixels, not "
                f"{height}×{width}; enlarge the image or choose a smaller cell."
            )
        grey = as_gray(images)
        exact = 255 * grey.detach().double()
        whole = exact.round()
        bits = _differences(torch.where((exact - whole).abs() < SNAP, whole, exact)) >= 0
        soft = soft_bits(_differences(grey), bits, surrogate)
        return [self._histograms(soft, bits)]

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f"method={self.method}, cell={self.cell}"

    def _histograms(self, soft: Tensor, bits: Tensor) -> Tensor:
        """Return the shares of bins in cells, from bits (B, 8, H, W) as numbers with a gradient, and as booleans."""
        height, width = (size if self.cell is None else size // self.cell * self.cell for size in bits.shape[2:])
        soft, bits = soft[..., :height, :width], bits[..., :height, :width]
        cell_rows, cell_columns = (height, width) if self.cell is None else (self.cell, self.cell)
        rows, columns = height // cell_rows, width // cell_columns
        row, column = (torch.arange(size, device=bits.device) for size in (height, width))
        cells = (row // cell_rows)[:, None] * columns + column // cell_columns

        bins = _bins(self.method, bits.device)
        count = int(bins.max()) + 1
        flat = soft.new_zeros(len(bits), rows * columns * count)

        def add(patterns: Tensor, amounts: Tensor) -> Tensor:
            return flat.scatter_add(1, (cells * count + bins[patterns]).flatten(1), amounts.flatten(1))

        weight = 2 ** torch.arange(len(NEIGHBOURS), device=bits.device)[:, None, None]
        patterns = (bits * weight).sum(1)
        flat = add(patterns, torch.ones_like(soft[:, 0]))
        # A bit that turns on moves its pixel from one bin to another. These amounts are exactly zero.
        change = soft - soft.detach()
        for k in range(len(NEIGHBOURS)):
            flat = add(patterns | 1 << k, change[:, k])
            flat = add(patterns & ~(1 << k), -change[:, k])
        flat = flat / (cell_rows * cell_columns)
        # (B, rows, columns, bins) → (B, bins, rows, columns)
        return flat if self.cell is None else flat.view(-1, rows, columns, count).permute(0, 3, 1, 2)


def _differences(grey: Tensor) -> Tensor:
    """Return the difference of each neighbour from its pixel, (B, 1, H, W) → (B, 8, H, W), zero in flat parts."""
    height, width = grey.shape[2:]
    framed = F.pad(grey, (1, 1, 1, 1))

    def beside(row: int, column: int) -> Tensor:
        return framed[..., 1 + row : 1 + row + height, 1 + column : 1 + column + width] - grey

    def neighbour(row: int, column: int) -> Tensor:
        if row == 0 or column == 0:
            return beside(row, column)
        sides = beside(row, 0) + beside(0, column)
        return DIAGONAL * ((1 - DIAGONAL) * sides + DIAGONAL * beside(row, column))

    return torch.cat([neighbour(row, column) for row, column in NEIGHBOURS], 1)


@lru_cache(maxsize=16)
def _bins(method: str, device: torch.device) -> Tensor:
    """Return the bin of each of the 256 patterns, whose bit k is that of neighbour k (Ojala; Ahonen et al., 2006)."""
    size = len(NEIGHBOURS)
    others = size + 1 if method == "uniform" else size * (size - 1) + 2  # the last bin
    found = []
    for pattern in range(2**size):
        bits = [pattern >> k & 1 for k in range(size)]
        ones = sum(bits)
        starts = [k for k in range(size) if bits[k] and not bits[k - 1]]  # of runs of ones
        if len(starts) > 1:
            found.append(others)
        elif method == "uniform" or ones == 0:
            found.append(ones)
        else:
            turn = -starts[0] % size if starts else 0
            found.append(1 + (ones - 1) * size + turn)
    with torch.inference_mode(False):
        return torch.tensor(found, device=device)
