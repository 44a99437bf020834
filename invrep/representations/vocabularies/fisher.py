"""Encode descriptors by the gradient of a Gaussian mixture's likelihood: Fisher vectors (Perronnin 2010)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from invrep.representations.surrogate import Surrogate
from invrep.representations.vocabularies.normalisation import l2, signed_root
from invrep.representations.vocabularies.pooling import Cell

PRUNED = 1e-6  # VLFeat leaves out posteriors and priors below this


class Fisher(nn.Module):
    """Sum the first and second moments of descriptors under a mixture; VLFeat's ``vl_fisher`` and its flags.

    Args:
        means: means of the Gaussians, (K, D).
        variances: variances, the diagonal of their covariances, (K, D).
        priors: weights of the Gaussians, (K,).
        root: whether values become their signed roots (SquareRoot; with ``normalise`` it is Improved).
        normalise: whether each cell's code gets unit norm (Normalized).
        fast: whether a descriptor belongs to its likeliest Gaussian alone (Fast).

    Shape:
        - rows: (B, N, D).
        - returns: (B, cells, 2·K·D): of every Gaussian the D values of the mean, then those of the variance.
    """

    means: Tensor
    variances: Tensor
    priors: Tensor

    def __init__(
        self,
        means: Float[Tensor, "word value"],
        variances: Float[Tensor, "word value"],
        priors: Float[Tensor, " word"],
        *,
        root: bool = True,
        normalise: bool = True,
        fast: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("means", means)
        self.register_buffer("variances", variances)
        self.register_buffer("priors", priors)
        self.root, self.normalise, self.fast = root, normalise, fast

    def posteriors(self, rows: Float[Tensor, "batch row value"]) -> Float[Tensor, "batch row word"]:
        """Return the probability of every Gaussian for every row; values below 1e-6 are 0."""
        precisions = self.variances.reciprocal()
        # Σ (x − μ)²/σ² as three products: never (B, N, K, D). About the mixture's mean, they cancel less.
        centre = self.means.mean(0)
        x, means = rows - centre, self.means - centre
        squares = x.square() @ precisions.T - 2 * (x @ (means * precisions).T) + (means.square() * precisions).sum(1)
        logits = self.priors.log() - 0.5 * (self.variances.log().sum(1) + squares)
        if self.fast:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1)
        found = logits.softmax(-1)
        return torch.where(found < PRUNED, 0, found)

    def forward(
        self, rows: Float[Tensor, "batch row value"], cells: Sequence[Cell], surrogate: Surrogate | None = None
    ) -> Float[Tensor, "batch cell code"]:
        """Return the codes of the cells."""
        posteriors = self.posteriors(rows)
        deviations = self.variances.sqrt()
        kept = (self.priors >= PRUNED)[:, None]
        scale = torch.where(kept, self.priors.clamp(min=PRUNED)[:, None].rsqrt(), 0)
        codes = []
        for cell in cells:
            p, x = posteriors[:, cell].transpose(1, 2), rows[:, cell]
            count = max(x.shape[1], 1)
            mass, first, second = p.sum(2, keepdim=True), p @ x, p @ x.square()
            u = (first - mass * self.means) / deviations
            v = (second - 2 * self.means * first + mass * self.means.square()) / self.variances - mass
            code = torch.cat([u, v / math.sqrt(2)], 1) * torch.cat([scale, scale]) / count
            codes.append(code.flatten(1))
        code = torch.stack(codes, 1)
        if self.root:
            code = signed_root(code, surrogate)
        return l2(code) if self.normalise else code
