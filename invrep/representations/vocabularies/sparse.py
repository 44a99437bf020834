"""Encode descriptors by sparse codes over a dictionary, and pool their absolute values: ScSPM (Yang 2009)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from invrep.representations.surrogate import Surrogate
from invrep.representations.vocabularies.lasso import lasso, on_support
from invrep.representations.vocabularies.normalisation import l2
from invrep.representations.vocabularies.pooling import Cell, largest


class SparseCodes(nn.Module):
    """Write each descriptor as a sparse sum of atoms: argmin ½‖x − Σ a_k d_k‖² + λ·Σ|a_k|.

    The derivative is exact where the set of atoms in use is locally constant, almost everywhere.

    Args:
        atoms: dictionary, (K, D).
        weight: λ.
        normalise: whether the cells of a pyramid together get unit norm.

    Shape:
        - rows: (B, N, D).
        - returns: (B, cells, K), the greatest absolute value of each coefficient in each cell.
    """

    atoms: Tensor

    def __init__(self, atoms: Float[Tensor, "atom value"], *, weight: float = 0.15, normalise: bool = True) -> None:
        super().__init__()
        self.register_buffer("atoms", atoms)
        self.weight, self.normalise = weight, normalise

    def codes(self, rows: Float[Tensor, "batch row value"]) -> Float[Tensor, "batch row atom"]:
        """Return the coefficients of every row."""
        gram = self.atoms @ self.atoms.T
        codes = []
        for image in rows:  # one at a time: the rounding of a code depends on the number of rows
            code = lasso(image, self.atoms, self.weight)
            if image.requires_grad:
                code = on_support(image @ self.atoms.T, gram, self.weight, code.nan_to_num().sign())
            codes.append(code)
        return torch.stack(codes)

    def forward(
        self, rows: Float[Tensor, "batch row value"], cells: Sequence[Cell], surrogate: Surrogate | None = None
    ) -> Float[Tensor, "batch cell atom"]:
        """Return the pooled codes."""
        code = largest(self.codes(rows).abs(), cells)
        return l2(code, (1, 2)) if self.normalise else code
