"""Encode descriptors by their nearest words under a locality constraint: LLC (Wang 2010)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from invrep.representations.surrogate import Surrogate
from invrep.representations.vocabularies.normalisation import l2
from invrep.representations.vocabularies.pooling import Cell, largest
from invrep.representations.vocabularies.words import Words


class LLC(nn.Module):
    """Write each descriptor as a sum of its nearest words, with weights that sum to 1.

    The weights are C⁻¹·1 over their sum, where C is the Gram matrix of words less descriptor, plus a ridge times its
    trace on the diagonal (the authors' ``LLC_coding_appr.m``). The derivative is exact almost everywhere.

    Args:
        centers: words, (K, D).
        neighbours: number of nearest words.
        ridge: ridge over the trace.
        absolute: whether the pool takes the greatest absolute value instead of the authors' greatest value.
        normalise: whether the cells of a pyramid together get unit norm.

    Shape:
        - rows: (B, N, D).
        - returns: (B, cells, K), the greatest value of each word in each cell.
    """

    def __init__(
        self,
        centers: Float[Tensor, "word value"],
        *,
        neighbours: int = 5,
        ridge: float = 1e-4,
        absolute: bool = False,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.words = Words(centers)
        self.neighbours, self.ridge, self.absolute, self.normalise = neighbours, ridge, absolute, normalise

    def codes(self, rows: Float[Tensor, "batch row value"]) -> Float[Tensor, "batch row word"]:
        """Return the weight of every word for every row."""
        with torch.no_grad():
            distances = self.words.distances(rows)
            nearest = distances.topk(self.neighbours, dim=-1, largest=False).indices
        offsets = self.words.centers[nearest] - rows[..., None, :]  # (B, N, neighbours, D)
        gram = offsets @ offsets.transpose(-1, -2)
        trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=torch.finfo(rows.dtype).tiny)
        eye = torch.eye(self.neighbours, dtype=rows.dtype, device=rows.device)
        system = gram + (self.ridge * trace)[..., None, None] * eye
        weights = torch.linalg.solve_ex(system, torch.ones_like(system[..., :1])).result[..., 0]
        weights = weights / weights.sum(-1, keepdim=True)
        return torch.zeros_like(distances).scatter(-1, nearest, weights)

    def forward(
        self, rows: Float[Tensor, "batch row value"], cells: Sequence[Cell], surrogate: Surrogate | None = None
    ) -> Float[Tensor, "batch cell word"]:
        """Return the pooled codes."""
        codes = self.codes(rows)
        code = largest(codes.abs() if self.absolute else codes, cells)
        return l2(code, (1, 2)) if self.normalise else code
