"""Project descriptors onto principal components."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class Projection(nn.Module):
    """Map each row x to basis·(x − mean), without whitening.

    Args:
        mean: mean of the rows, (F,).
        basis: principal components, (D, F).

    Shape:
        - rows: (B, N, F).
        - returns: (B, N, D).
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, mean: Float[Tensor, " value"], basis: Float[Tensor, "component value"]) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)

    def forward(self, rows: Float[Tensor, "batch row value"]) -> Float[Tensor, "batch row component"]:
        """Return the projected rows."""
        return (rows - self.mean) @ self.basis.T
