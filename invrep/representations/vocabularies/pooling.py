"""Pool the codes of descriptors over the cells of a spatial pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Cell = Tensor | slice  # indices of the rows in a cell
WHOLE: tuple[Cell, ...] = (slice(None),)  # the one cell of a code without a pyramid


def pyramid(positions: tuple[Tensor, Tensor], size: tuple[int, int], levels: Sequence[int]) -> list[Cell]:
    """Return the cells of a spatial pyramid: n × n of each level n, row by row, one level after another.

    A position p falls into the cell ⌊p·n / side⌋ (Lazebnik 2006; Yang 2009), with p in pixels from the centre of the
    first pixel.

    Args:
        positions: rows (R,) and columns (C,) of a grid of R·C descriptors, in pixels.
        size: height and width of the image in pixels.
        levels: numbers of cells along a side.
    """
    cells: list[Cell] = []
    for level in levels:
        if level == 1:
            cells += WHOLE
            continue
        rows, columns = (
            (at * level / side).floor().long().clamp(0, level - 1) for at, side in zip(positions, size, strict=True)
        )
        number = (rows[:, None] * level + columns).flatten()
        cells += [(number == cell).nonzero()[:, 0] for cell in range(level * level)]
    return cells


def _empty(cell: Cell) -> bool:
    return isinstance(cell, Tensor) and len(cell) == 0


def average(codes: Float[Tensor, "batch row word"], cells: Sequence[Cell]) -> Float[Tensor, "batch cell word"]:
    """Return the mean code of each cell, (B, N, K) → (B, cells, K); an empty cell has zeros."""
    zeros = torch.zeros_like(codes[:, 0])
    return torch.stack([zeros if _empty(cell) else codes[:, cell].mean(1) for cell in cells], 1)


def largest(codes: Float[Tensor, "batch row word"], cells: Sequence[Cell]) -> Float[Tensor, "batch cell word"]:
    """Return the greatest value of each word in each cell, (B, N, K) → (B, cells, K); an empty cell has zeros."""
    zeros = torch.zeros_like(codes[:, 0])
    return torch.stack([zeros if _empty(cell) else codes[:, cell].max(1).values for cell in cells], 1)
