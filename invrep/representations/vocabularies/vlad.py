"""Encode descriptors by their residuals to the nearest words: VLAD (Jégou 2010)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from invrep.representations.surrogate import Surrogate
from invrep.representations.vocabularies.normalisation import l2, signed_root
from invrep.representations.vocabularies.pooling import Cell
from invrep.representations.vocabularies.words import Words


class VLAD(nn.Module):
    """Sum the residuals of descriptors to their nearest words; VLFeat's ``vl_vlad`` and its flags, in its order.

    The derivative is exact almost everywhere. A surrogate adds the smoothed derivative of the assignment
    (:class:`~invrep.representations.vocabularies.words.Words`), without which a descent seldom moves a descriptor from
    one word to another.

    Args:
        centers: words, (K, D).
        mass: whether a word's residuals are divided by the number of its descriptors (NormalizeMass).
        root: whether values become their signed roots (SquareRoot).
        per_word: whether each word's residual gets unit norm (NormalizeComponents).
        normalise: whether each cell's code gets unit norm; False: Unnormalized.

    Shape:
        - rows: (B, N, D).
        - returns: (B, cells, K·D), the D values of a word contiguous.
    """

    def __init__(
        self,
        centers: Float[Tensor, "word value"],
        *,
        mass: bool = False,
        root: bool = False,
        per_word: bool = False,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.words = Words(centers)
        self.mass, self.root, self.per_word, self.normalise = mass, root, per_word, normalise

    def forward(
        self, rows: Float[Tensor, "batch row value"], cells: Sequence[Cell], surrogate: Surrogate | None = None
    ) -> Float[Tensor, "batch cell code"]:
        """Return the codes of the cells."""
        nearest = self.words(rows, surrogate)
        centers = self.words.centers
        codes = []
        for cell in cells:
            counts = nearest[:, cell].sum(1)[..., None]
            sums = nearest[:, cell].transpose(1, 2) @ rows[:, cell]
            sums, counts = (sums / counts.clamp(min=1), (counts > 0).to(sums)) if self.mass else (sums, counts)
            code = sums - centers * counts
            if self.root:
                code = signed_root(code, surrogate)
            if self.per_word:
                code = l2(code)
            codes.append(code.flatten(1))
        code = torch.stack(codes, 1)
        return l2(code) if self.normalise else code
