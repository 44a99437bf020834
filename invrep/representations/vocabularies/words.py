"""Assign descriptors to their nearest words, and count the words: bags of visual words (Csurka 2004)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from invrep.representations.surrogate import Surrogate
from invrep.representations.vocabularies.pooling import Cell, average

# τ at softness 1, over the root mean square distance of an image's descriptors to nearest words. At .25, .5, 1 and 2, a
# pyramid of 256 words was matched to 18, 5.7, 3.9 and 4.5 % (two photos, 150 passes).
WIDTH = 1.0


class Words(nn.Module):
    """Assign each descriptor to the nearest of K words.

    Its own derivative is zero almost everywhere. A surrogate takes the derivative of softmax(−d²/2τ²) over the words,
    with d the distances and τ = softness · the root mean square of an image's distances to nearest words.

    Args:
        centers: words, (K, D).

    Shape:
        - rows: (B, N, D).
        - returns: (B, N, K), 1 at the nearest word, else 0; of several nearest ones, the first.
    """

    centers: Tensor

    def __init__(self, centers: Float[Tensor, "word value"]) -> None:
        super().__init__()
        self.register_buffer("centers", centers)

    def distances(self, rows: Float[Tensor, "batch row value"]) -> Float[Tensor, "batch row word"]:
        """Return the squared distances of rows to words less the rows' squared norms."""
        norms = self.centers.square().sum(1)
        return norms - 2 * (rows @ self.centers.T)

    def forward(
        self, rows: Float[Tensor, "batch row value"], surrogate: Surrogate | None = None
    ) -> Float[Tensor, "batch row word"]:
        """Return the assignments."""
        if surrogate is None or not rows.requires_grad:
            with torch.no_grad():
                return _nearest(self.distances(rows))
        return cast(Tensor, _Assign.apply(rows, self.centers, self.distances(rows.detach()), surrogate.softness))


def _nearest(distances: Tensor) -> Tensor:
    return torch.zeros_like(distances).scatter_(-1, distances.argmin(-1, keepdim=True), 1)


class _Assign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, centers: Tensor, distances: Tensor, softness: float | Tensor) -> Tensor:
        square = distances.amin(-1) + rows.square().sum(-1)
        width = square.mean(-1).clamp(min=torch.finfo(rows.dtype).eps) * (WIDTH * softness) ** 2
        ctx.save_for_backward(centers, distances, width[:, None, None])
        return _nearest(distances)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        centers, distances, width = ctx.saved_tensors
        soft = (distances / (-2 * width)).softmax(-1)
        soft = soft * (gradient - (soft * gradient).sum(-1, keepdim=True))
        return soft @ centers / width, None, None, None


class BagOfWords(nn.Module):
    """Encode descriptors as histograms of their nearest words, which sum to 1 in every cell.

    Args:
        centers: words, (K, D).

    Shape:
        - rows: (B, N, D).
        - returns: (B, cells, K).
    """

    def __init__(self, centers: Float[Tensor, "word value"]) -> None:
        super().__init__()
        self.words = Words(centers)

    def forward(
        self, rows: Float[Tensor, "batch row value"], cells: Sequence[Cell], surrogate: Surrogate | None = None
    ) -> Float[Tensor, "batch cell word"]:
        """Return the histograms."""
        return average(self.words(rows, surrogate), cells)
